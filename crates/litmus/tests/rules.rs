//! One test for each rule that is easy to get wrong, in the rules' order.
//!
//! A script is a line for each statement, with `:` and `;` between a task and
//! its operations; the expected traces were worked out by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cellule_litmus::{Script, run};

/// Runs a script that is written one task a line.
fn trace(lines: &[&str]) -> String {
    let text = lines.iter().map(|line| match line.split_once(':') {
        Some((task, operations)) => format!("{task}\n{}\nend\n", operations.replace(';', "\n")),
        None => format!("{line}\n"),
    });
    run(&Script::parse(&text.collect::<String>()).unwrap()).to_string()
}

// Time.

#[test]
fn tasks_that_start_at_once_stand_in_file_order() {
    let trace = trace(&["task A 1 at 0: mark a", "task B 1: mark b"]);
    assert_eq!(trace, "a@0 b@0 end@0");
}

#[test]
fn starts_are_armed_before_anything_that_a_task_arms() {
    let trace =
        trace(&["task A 3: sleep 5; mark a", "task B 3: sleep 5; mark b", "task C 3 at 5: mark c"]);
    assert_eq!(trace, "c@5 a@5 b@5 end@5");
}

#[test]
fn a_wait_is_recorded_when_its_task_next_runs() {
    let trace =
        trace(&["sem s 0 1", "task W 2: take s as w", "task G 4: give s as g; work 3; mark x"]);
    assert_eq!(trace, "g=ok@0 x@3 w=ok@3 end@3");
}

#[test]
fn long_times_are_one_step() {
    // Slice by slice it would be 2^63 steps.
    let trace = trace(&["slice 2", "task A 3: work 18446744073709551615; mark a"]);
    assert_eq!(trace, "a@18446744073709551615 end@18446744073709551615");
}

#[test]
fn slices_are_counted_through_long_work() {
    // B comes two ticks into a slice of A's: 10^12 - 1 is a multiple of 3.
    let trace = trace(&[
        "slice 3",
        "task A 3: work 1000000000003; mark a",
        "task B 3 at 999999999998: mark b",
    ]);
    assert_eq!(trace, "b@999999999999 a@1000000000003 end@1000000000003");
}

#[test]
fn deadlines_saturate_where_time_stops() {
    let trace = trace(&["task A 3: sleep 5; sleep 18446744073709551615; mark a; sleep 1; mark b"]);
    assert_eq!(trace, "a@18446744073709551615 b@18446744073709551615 end@18446744073709551615");
}

#[test]
fn work_goes_on_where_time_stops() {
    // The timer that is armed then is due at the first tick of work.
    let trace = trace(&[
        "task A 3: sleep 18446744073709551615; sleep 1; mark a",
        "task B 2: sleep 18446744073709551615; work 9; mark b",
    ]);
    assert_eq!(trace, "a@18446744073709551615 b@18446744073709551615 end@18446744073709551615");
}

// Choice.

#[test]
fn a_preempted_task_goes_to_the_front_of_its_line() {
    let trace = trace(&["task A 3: work 3; mark a", "task B 3: mark b", "task H 9 at 1: mark h"]);
    assert_eq!(trace, "h@1 a@3 b@3 end@3");
}

#[test]
fn a_changed_priority_puts_a_ready_task_at_the_end() {
    // C comes back to the line it left, behind D.
    let trace = trace(&["task C 4: mark c", "task D 4: mark d", "task H 9: prio C 5; prio C 4"]);
    assert_eq!(trace, "d@0 c@0 end@0");
}

#[test]
fn a_priority_set_to_what_it_is_moves_nobody() {
    let trace = trace(&["task C 4: mark c", "task D 4: mark d", "task H 9: prio C 4"]);
    assert_eq!(trace, "c@0 d@0 end@0");
}

#[test]
fn a_base_priority_that_inheritance_hides_moves_nobody() {
    // At 2 L is at the front of line 9, before X, and stays there.
    let trace = trace(&[
        "mutex m",
        "task L 1: lock m; work 4; mark l; unlock m",
        "task W 9 at 1: lock m; mark w",
        "task X 9 at 2: mark x",
        "task H 20 at 2: prio L 5",
    ]);
    assert_eq!(trace, "l@4 x@4 w@4 end@4");
}

#[test]
fn yield_goes_behind_equals_only() {
    let trace =
        trace(&["task A 3: mark a1; yield; mark a2", "task B 3: mark b", "task C 1: mark c"]);
    assert_eq!(trace, "a1@0 b@0 a2@0 c@0 end@0");
}

#[test]
fn a_task_that_lowers_itself_below_another_goes_to_the_front_of_its_new_line() {
    let trace = trace(&["task A 5: prio A 3; mark a", "task B 4: mark b", "task C 3: mark c"]);
    assert_eq!(trace, "b@0 a@0 c@0 end@0");
}

#[test]
fn a_task_that_lowers_itself_to_another_goes_on() {
    let trace = trace(&["task A 5: prio A 4; mark a", "task B 4: mark b"]);
    assert_eq!(trace, "a@0 b@0 end@0");
}

#[test]
fn a_raised_task_preempts_at_once() {
    let trace = trace(&["task A 3: mark a", "task B 5: prio A 6; mark b"]);
    assert_eq!(trace, "a@0 b@0 end@0");
}

// Slice.

#[test]
fn an_expired_slice_that_nobody_shares_starts_anew() {
    // At 3 A has worked one tick of its second slice.
    let trace = trace(&["slice 2", "task A 3: work 4; mark a", "task B 3 at 3: mark b"]);
    assert_eq!(trace, "b@4 a@4 end@4");
}

#[test]
fn a_slice_is_looked_at_after_the_timers_of_its_tick() {
    let trace = trace(&["slice 2", "task A 3: work 2; mark a", "task B 3 at 2: mark b"]);
    assert_eq!(trace, "b@2 a@2 end@2");
}

#[test]
fn an_expired_slice_ends_also_when_a_more_urgent_task_takes_over() {
    let trace = trace(&[
        "slice 2",
        "task A 3: work 2; mark a",
        "task B 3: mark b",
        "task H 9 at 2: mark h",
    ]);
    assert_eq!(trace, "h@2 b@2 a@2 end@2");
}

#[test]
fn a_slice_goes_on_through_a_change_of_ones_own_priority() {
    let trace = trace(&[
        "slice 2",
        "task A 3: work 1; prio A 4; prio A 3; work 1; mark a",
        "task B 3: mark b",
    ]);
    assert_eq!(trace, "b@2 a@2 end@2");
}

#[test]
fn a_slice_goes_on_through_an_operation_that_does_not_wait() {
    let trace = trace(&[
        "slice 2",
        "sem s 0 1",
        "task A 3: work 1; take s 0 as r; work 1; mark a",
        "task B 3: mark b",
    ]);
    assert_eq!(trace, "r=busy@1 b@2 a@2 end@2");
}

#[test]
fn blocking_starts_a_new_slice() {
    // A has worked 2 before its sleep and 2 after.
    let trace = trace(&[
        "slice 3",
        "task A 3: work 2; sleep 1; work 2; mark a",
        "task B 3: work 4; mark b",
    ]);
    assert_eq!(trace, "a@7 b@8 end@8");
}

#[test]
fn yielding_starts_a_new_slice_also_when_alone() {
    let trace =
        trace(&["slice 2", "task A 3: work 1; yield; work 1; mark a", "task B 3 at 2: mark b"]);
    assert_eq!(trace, "a@2 b@2 end@2");
}

#[test]
fn being_sent_to_the_end_by_a_priority_starts_a_new_slice() {
    // A worked 1 before H moved it away and back, and gets 2 more after B's slice.
    let trace = trace(&[
        "slice 2",
        "task A 3: work 3; mark a",
        "task B 3: work 3; mark b",
        "task H 9 at 1: prio A 4; prio A 3",
    ]);
    assert_eq!(trace, "b@6 a@6 end@6");
}

#[test]
fn an_expired_slice_looks_at_inherited_priorities() {
    // L works at 5 on behalf of W, in the same line as X.
    let trace = trace(&[
        "slice 2",
        "mutex m",
        "task L 1: lock m; work 3; mark l; unlock m",
        "task W 5 at 1: lock m; mark w",
        "task X 5 at 1: mark x",
    ]);
    assert_eq!(trace, "x@1 l@3 w@3 end@3");
}

// Waiting.

#[test]
fn inherited_priorities_count_for_the_choice_of_a_waiter() {
    // L waits for s with the 9 of W, M with its own 5.
    let trace = trace(&[
        "sem s 0 9",
        "mutex m",
        "task L 2: lock m; take s; mark l; unlock m",
        "task M 5: take s; mark m",
        "task W 9 at 1: lock m; mark w",
        "task G 1 at 2: give s; give s",
    ]);
    assert_eq!(trace, "l@2 w@2 m@2 end@2");
}

#[test]
fn a_lowered_waiter_is_chosen_by_its_new_priority() {
    let trace = trace(&[
        "sem s 0 9",
        "task A 5: take s; mark a",
        "task B 4: take s; mark b",
        "task G 1: prio A 3; give s; give s",
    ]);
    assert_eq!(trace, "b@0 a@0 end@0");
}

#[test]
fn among_equal_waiters_the_one_that_has_waited_longest_is_chosen() {
    // A waits anew after its timeout.
    let trace = trace(&[
        "sem s 0 9",
        "task A 5: take s 1; take s; mark a",
        "task B 5: take s; mark b",
        "task G 1 at 2: give s; give s",
    ]);
    assert_eq!(trace, "b@2 a@2 end@2");
}

#[test]
fn a_satisfied_wait_takes_its_flags_from_the_next() {
    let trace = trace(&[
        "flags f",
        "task A 5: wait f any 3 as a",
        "task B 4: wait f any 1 as b",
        "task C 1: set f 1; mark c; set f 1",
    ]);
    assert_eq!(trace, "a=1@0 c@0 b=1@0 end@0");
}

#[test]
fn a_wait_for_all_takes_nothing_until_it_has_all() {
    let trace = trace(&[
        "flags f",
        "task A 5: wait f all 3 as a",
        "task B 4: wait f any 1 as b",
        "task C 1: set f 1; set f 2; set f 1",
    ]);
    assert_eq!(trace, "b=1@0 a=3@0 end@0");
}

#[test]
fn cleared_flags_satisfy_nobody() {
    let trace =
        trace(&["flags f", "task A 5: sleep 1; wait f any 3 as a", "task C 1: set f 3; clear f 1"]);
    assert_eq!(trace, "a=2@1 end@1");
}

#[test]
fn one_set_wakes_all_that_it_satisfies() {
    let trace = trace(&[
        "flags f",
        "task A 5: wait f any 1 as a",
        "task B 6: wait f all 6 as b",
        "task C 1: set f 7; wait f any 7 0 as c",
    ]);
    assert_eq!(trace, "b=6@0 a=1@0 c=busy@0 end@0");
}

#[test]
fn a_full_semaphore_stays_full() {
    let trace = trace(&["sem s 1 1", "task A 1: give s as a; take s 0 as b; take s 0 as c"]);
    assert_eq!(trace, "a=full@0 b=ok@0 c=busy@0 end@0");
}

// Priority inheritance.

#[test]
fn an_owner_that_inherits_goes_to_the_end_of_its_new_line() {
    // W blocks while X stands in line 9.
    let trace = trace(&[
        "mutex m",
        "task L 1: lock m; work 2; mark l",
        "task W 9 at 1: lock m",
        "task X 9 at 1: mark x",
    ]);
    assert_eq!(trace, "x@1 l@2 end@2");
}

#[test]
fn a_killed_waiter_gives_nothing_any_more() {
    let trace = trace(&[
        "mutex m",
        "task L 1: lock m; work 4; mark l",
        "task W 9 at 1: lock m",
        "task M 5 at 1: work 1; mark m",
        "task K 20 at 2: kill W",
    ]);
    assert_eq!(trace, "m@3 l@5 end@5");
}

#[test]
fn a_lowered_waiter_gives_less() {
    let trace = trace(&[
        "mutex m",
        "task L 1: lock m; work 4; mark l",
        "task W 9 at 1: lock m",
        "task M 5 at 1: work 1; mark m",
        "task K 20 at 2: prio W 1",
    ]);
    assert_eq!(trace, "m@3 l@5 end@5");
}

#[test]
fn a_suspended_waiter_still_gives_and_still_gets() {
    let trace = trace(&[
        "mutex m",
        "task L 1: lock m; work 3; mark l; unlock m; mark l2",
        "task W 9 at 1: lock m as w",
        "task X 5 at 2: mark x",
        "task H 20 at 2: suspend W; sleep 5; resume W",
    ]);
    assert_eq!(trace, "l@3 x@3 l2@3 w=ok@7 end@7");
}

#[test]
fn a_joiner_gives_nothing() {
    let trace = trace(&[
        "task L 1: work 2; mark l",
        "task W 9: join L as w",
        "task M 5 at 1: work 2; mark m",
    ]);
    assert_eq!(trace, "m@3 l@4 w=ok@4 end@4");
}

#[test]
fn a_cycle_of_owners_has_its_highest_priority() {
    // A and B own what the other wants; H wants what B owns, and so raises A above M.
    let trace = trace(&[
        "mutex a",
        "mutex b",
        "task A 1: lock a; sleep 1; lock b 5 as ra; work 1; mark a; unlock a",
        "task B 3: lock b; sleep 1; lock a as rb; mark b",
        "task M 5 at 6: work 2; mark m",
        "task H 9 at 2: lock b as h",
    ]);
    assert_eq!(trace, "ra=timeout@6 a@7 rb=ok@7 b@7 h=ownerdead@7 m@9 end@9");
}

#[test]
fn each_timer_is_a_moment_of_its_own() {
    // At 3 L2 falls back to line 1 before L1 does, as the timers were armed.
    let trace = trace(&[
        "mutex a",
        "mutex b",
        "task L1 1: lock a; yield; work 5; mark l1",
        "task L2 1: lock b; yield; work 5; mark l2",
        "task HB 8 at 1: lock b 2",
        "task HA 8 at 1: lock a 2",
        "task R 9 at 2: work 3",
    ]);
    assert_eq!(trace, "l2@9 l1@13 end@13");
}

// End of a task.

#[test]
fn a_task_preempted_by_its_last_operation_has_not_ended() {
    let trace = trace(&["sem s 0 1", "task W 6: take s; join G 0 as j", "task G 4: give s"]);
    assert_eq!(trace, "j=busy@0 end@0");
}

#[test]
fn a_task_put_back_by_its_last_operation_has_not_ended() {
    let trace = trace(&["task A 4: yield", "task B 4: join A 0 as j"]);
    assert_eq!(trace, "j=busy@0 end@0");
}

#[test]
fn a_task_whose_slice_expires_with_its_last_work_has_not_ended() {
    let trace = trace(&["slice 2", "task A 4: work 2", "task B 4: join A 0 as j"]);
    assert_eq!(trace, "j=busy@2 end@2");
}

#[test]
fn a_task_that_kills_itself_ends_at_once() {
    let trace = trace(&[
        "mutex m",
        "task A 5: lock m; kill A; mark never",
        "task B 3: join A as j; lock m as l",
    ]);
    assert_eq!(trace, "j=killed@0 l=ownerdead@0 end@0");
}

#[test]
fn a_task_can_be_killed_before_its_start() {
    let trace = trace(&["task A 5 at 9: mark never", "task B 3: kill A; join A as j"]);
    assert_eq!(trace, "j=killed@0 end@0");
}

#[test]
fn an_ended_task_is_out_of_reach() {
    let trace =
        trace(&["task A 5:", "task B 3: kill A; suspend A; resume A; prio A 9; join A as j"]);
    assert_eq!(trace, "j=ok@0 end@0");
}

#[test]
fn mutexes_of_an_ended_task_go_in_the_order_of_their_acquisition() {
    // n was acquired first, though m is defined first and waited for first.
    let trace = trace(&[
        "mutex m",
        "mutex n",
        "task A 9: lock n; lock m; sleep 1",
        "task X 5: lock m as x",
        "task Y 5: lock n as y",
    ]);
    assert_eq!(trace, "y=ownerdead@1 x=ownerdead@1 end@1");
}

#[test]
fn a_free_mutex_remembers_its_dead_owner_until_it_is_locked() {
    let trace = trace(&[
        "mutex m",
        "task A 9: lock m",
        "task B 5: lock m 0 as b1; unlock m as b2; lock m as b3",
    ]);
    assert_eq!(trace, "b1=ownerdead@0 b2=ok@0 b3=ok@0 end@0");
}

#[test]
fn a_mutex_handed_to_a_task_that_is_killed_is_a_dead_owners() {
    let trace = trace(&[
        "mutex m",
        "task A 5: lock m; sleep 1; unlock m; kill W; lock m as l",
        "task W 3: lock m; mark never",
    ]);
    assert_eq!(trace, "l=ownerdead@1 end@1");
}

#[test]
fn a_unit_handed_to_a_task_that_is_killed_is_lost() {
    let trace = trace(&[
        "sem s 0 1",
        "task A 2: take s; mark never",
        "task K 5 at 1: give s; kill A; take s 0 as k",
    ]);
    assert_eq!(trace, "k=busy@1 end@1");
}

#[test]
fn joiners_wake_with_the_end_that_they_waited_for() {
    let trace = trace(&[
        "task A 1 at 3: work 1",
        "task B 2: join A as b",
        "task C 3: join A 2 as c; join C as d; join A as e",
    ]);
    assert_eq!(trace, "c=timeout@2 d=self@2 e=ok@4 b=ok@4 end@4");
}

// Suspension.

#[test]
fn a_resumed_task_goes_to_the_end_of_its_line() {
    // At 1 A is at the front of its line, preempted.
    let trace = trace(&[
        "task A 3: work 3; mark a",
        "task B 3: mark b",
        "task H 9 at 1: suspend A; resume A",
    ]);
    assert_eq!(trace, "b@1 a@3 end@3");
}

#[test]
fn resume_moves_nobody_who_is_not_suspended() {
    let trace = trace(&["task A 3: work 2; mark a", "task B 3: mark b", "task H 9 at 1: resume A"]);
    assert_eq!(trace, "a@2 b@2 end@2");
}

#[test]
fn one_resume_undoes_any_number_of_suspends() {
    let trace = trace(&["task A 3: mark a", "task H 9: suspend A; suspend A; resume A; mark h"]);
    assert_eq!(trace, "h@0 a@0 end@0");
}

#[test]
fn a_task_that_suspends_itself_stops_before_its_next_operation() {
    let trace = trace(&["task A 5: suspend A; mark a", "task B 3: mark b; resume A; mark b2"]);
    assert_eq!(trace, "b@0 a@0 b2@0 end@0");
}

#[test]
fn a_task_whose_last_operation_suspends_it_has_not_ended() {
    let trace = trace(&["task A 5: suspend A", "task B 3: join A 2 as j"]);
    assert_eq!(trace, "j=timeout@2 deadlock@2");
}

#[test]
fn a_task_suspended_before_its_start_starts_when_resumed() {
    let trace = trace(&["task A 5 at 2: mark a", "task B 3: suspend A; sleep 5; resume A; mark b"]);
    assert_eq!(trace, "a@5 b@5 end@5");
}

#[test]
fn a_task_resumed_before_its_start_starts_in_time() {
    let trace = trace(&["task A 5 at 2: mark a", "task B 3: suspend A; resume A; sleep 5; mark b"]);
    assert_eq!(trace, "a@2 b@5 end@5");
}

#[test]
fn a_suspended_wait_times_out_in_time_and_answers_late() {
    let trace = trace(&[
        "sem s 0 1",
        "task A 5: take s 2 as a",
        "task B 3: suspend A; sleep 3; give s as g; resume A",
    ]);
    assert_eq!(trace, "g=ok@3 a=timeout@3 end@3");
}

// The end.

#[test]
fn a_script_without_tasks_ends_at_once() {
    let trace = trace(&[]);
    assert_eq!(trace, "end@0");
}

#[test]
fn the_timer_of_a_killed_task_delays_no_deadlock() {
    let trace = trace(&["task A 5: sleep 100", "task B 3: kill A", "task C 1: suspend C"]);
    assert_eq!(trace, "deadlock@0");
}

#[test]
fn the_timer_of_a_wait_that_is_over_delays_no_deadlock() {
    let trace = trace(&["sem s 0 1", "task A 5: take s 100 as a; take s", "task B 3: give s"]);
    assert_eq!(trace, "a=ok@0 deadlock@0");
}
