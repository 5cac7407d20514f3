//! Tasks in real guests: scheduled by the SDK, interrupted by the host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use cellule::{Image, Sandbox, TaskEvent, TaskFaults, Traced};
use support::{backends, on_every_backend};

/// Repeats what lets timers interrupt a guest until they did so often. On a busy
/// machine a deadline may pass while the guest is at a doorbell: no upcall then.
fn until_upcalls(sandbox: &mut Sandbox, upcalls: u64, mut again: impl FnMut(&mut Sandbox)) {
    for _ in 0..100 * upcalls {
        again(sandbox);
        if sandbox.stats().upcalls >= upcalls {
            return;
        }
    }
    panic!("timers should interrupt the guest: {:?}", sandbox.stats());
}

#[test]
fn tasks_share_a_sum_behind_a_mutex() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        assert_eq!(sandbox.call::<u32>("sum_by_tasks", (100_u32,)).unwrap(), 100);
        assert_eq!(sandbox.call::<u32>("sum_by_tasks", (300_u32,)).unwrap(), 300);
    });
}

#[test]
fn switches_and_hand_overs_cost_no_exit() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        sandbox.call::<u32>("ping_pong", (1_u32,)).unwrap();
        let before = sandbox.stats();
        assert_eq!(sandbox.call::<u32>("ping_pong", (10_000_u32,)).unwrap(), 10_000);
        let after = sandbox.stats();
        assert_eq!(after.exits - before.exits, 1, "the return of the call, and nothing else");
    });
}

#[test]
fn no_service_of_the_kernel_leaves_the_guest() {
    on_every_backend(cellule_test_guests::costs(), |make| {
        let mut sandbox = make();
        for service in [
            "two_switches",
            "give_and_take",
            "lock_and_unlock",
            "send_and_receive",
            "hand_over",
            "message_round_trip",
        ] {
            // The first calls make the stacks and the heap be there.
            let few: Vec<u32> = sandbox.call(service, (300_u32,)).unwrap();
            let more: Vec<u32> = sandbox.call(service, (300_u32,)).unwrap();
            let before = sandbox.stats().exits;
            let measured: Vec<u32> = sandbox.call(service, (300_u32,)).unwrap();
            assert_eq!((few.len(), more.len(), measured.len()), (300, 300, 300));
            assert_eq!(sandbox.stats().exits - before, 1, "{service}: the return and no other");
        }
    });
}

#[test]
fn a_timer_interrupts_a_guest_that_spins() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        until_upcalls(&mut sandbox, 20, |sandbox| {
            sandbox.call::<u64>("preempted_by_a_timer", (1_000_000_u64,)).unwrap();
        });
    });
}

#[test]
fn a_guest_with_nothing_to_do_wakes_by_its_timer() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        sandbox.call::<u64>("sleep_alone", (3_000_000_u64,)).unwrap();
    });
}

#[test]
fn equal_tasks_that_spin_share_the_processor_by_slices() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        let counts: Vec<u64> =
            sandbox.call("spinners", (3_u32, 1_000_000_u64, 20_000_000_u64)).unwrap();
        assert!(counts.iter().take(3).all(|count| *count > 1000), "{counts:?}");
    });
}

#[test]
fn registers_of_a_task_survive_a_thousand_upcalls() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        until_upcalls(&mut sandbox, 1000, |sandbox| {
            assert_eq!(sandbox.call::<u64>("registers_under_upcalls", (500_u64,)).unwrap(), 0);
        });
    });
}

#[test]
fn stacks_are_refused_by_size_and_number_and_given_back() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        for _ in 0..2 {
            let (count, why): (u32, String) =
                sandbox.call("spawn_until_refused", (16_384_u64,)).unwrap();
            assert_eq!(
                (count, why.as_str()),
                (512 + 64 + 8, "all stacks of 16384 bytes and more are in use")
            );
        }
        let (count, why): (u32, String) = sandbox.call("spawn_until_refused", (100_u64,)).unwrap();
        assert_eq!(
            (count, why.as_str()),
            (0, "a stack of 100 bytes is too small: the least is 8192")
        );
        let (count, why): (u32, String) =
            sandbox.call("spawn_until_refused", (1_u64 << 40,)).unwrap();
        assert_eq!(count, 0);
        assert!(why.contains("the host's largest have 262144"), "{why}");
    });
}

#[test]
fn the_use_of_each_stack_is_known() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        let mut sandbox = make();
        let list: Vec<(String, u64, u64)> = sandbox.call("stack_use", (3000_u32,)).unwrap();
        let (_, bytes, used) = list.iter().find(|(name, ..)| name == "deep").unwrap();
        assert_eq!(*bytes, 16 * 1024);
        assert!((3000..16_384).contains(used), "{used} bytes used");
    });
}

#[test]
fn a_task_that_fails_ends_alone_if_the_host_says_so() {
    let image = Image::from_bytes(cellule_test_guests::tasks()).unwrap();
    for backend in backends() {
        for how in ["panic", "overrun", "null"] {
            let builder = Sandbox::builder(&image).backend(backend);
            let mut sandbox = builder.task_faults(TaskFaults::EndTask).build().unwrap();
            for _ in 0..3 {
                let outcome: String = sandbox.call("task_fails", (how,)).unwrap();
                assert_eq!(outcome, "the task failed, owner died", "{how}");
            }
            assert_eq!(sandbox.poison(), None);
            let faults = if how == "panic" { 0 } else { 3 };
            assert_eq!(sandbox.stats().task_faults, faults);
        }
    }
}

#[test]
fn a_task_that_fails_ends_the_sandbox_unless_the_host_says_otherwise() {
    on_every_backend(cellule_test_guests::tasks(), |make| {
        for (how, text) in [
            ("panic", "on purpose"),
            ("overrun", "the guard page below the task stack"),
            ("null", "write"),
        ] {
            let mut sandbox = make();
            let error = sandbox.call::<String>("task_fails", (how,)).unwrap_err();
            assert!(error.to_string().contains(text), "{how}: {error}");
            assert!(sandbox.poison().is_some());
        }
    });
}

#[test]
fn what_tasks_did_can_be_seen_as_chrome_json() {
    let image = Image::from_bytes(cellule_test_guests::tasks()).unwrap();
    for backend in backends() {
        let mut sandbox = Sandbox::builder(&image).backend(backend).trace(1024).build().unwrap();
        until_upcalls(&mut sandbox, 1, |sandbox| {
            sandbox.call::<u64>("preempted_by_a_timer", (1_000_000_u64,)).unwrap();
        });
        sandbox.call::<Vec<(String, u64, u64)>>("stack_use", (100_u32,)).unwrap();
        let trace = sandbox.trace();
        let names: Vec<_> = trace.task_names().map(|(_, name)| name.to_owned()).collect();
        assert!(names.iter().any(|name| name == "deep"), "{names:?}");
        let has = |wanted: TaskEvent| {
            let of_task =
                |what: &Traced| matches!(what, Traced::Task { event, .. } if *event == wanted);
            trace.events().iter().any(|event| of_task(&event.what))
        };
        for event in [
            TaskEvent::Runs,
            TaskEvent::Created,
            TaskEvent::Ended,
            TaskEvent::Ready,
            TaskEvent::Blocked,
            TaskEvent::Upcall,
        ] {
            assert!(has(event), "{event:?} should be in the trace");
        }
        assert!(trace.events().is_sorted_by_key(|event| event.at));
        let json = trace.to_chrome_json();
        assert!(json.starts_with('{') && json.contains("\"deep (task "), "{json}");
    }
}
