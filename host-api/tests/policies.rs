//! What a policy does to a running guest, and when it is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use cellule::policy::{Budgets, Finding, OnDenial, Rate, Rules};
use cellule::{
    BuildError, CallError, Event, GuestFault, HostError, Image, LogLevel, MemorySink, Outcome,
    Poison, Policy, ReplyHandle, Sandbox, SandboxBuilder, Trail,
};
use cellule_test_guests::hosted;
use support::backends;
use support::raw::{Ask, deferring, with_raw};

/// Nothing comes back in the time of a test.
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test on every backend, with a sandbox of the hosted guest.
fn with_rules(rules: Rules, test: impl Fn(Sandbox, Trail)) {
    let image = Image::from_bytes(hosted()).unwrap();
    for backend in backends() {
        let (sink, trail) = MemorySink::new(1000);
        let builder = Sandbox::builder(&image).backend(backend).audit(sink);
        let policy = Policy::deny_all().allow_with("double", rules);
        test(double(builder).policy(policy).build().unwrap(), trail);
    }
}

fn double(builder: SandboxBuilder) -> SandboxBuilder {
    builder.host_function("double", |n: u64| n.wrapping_mul(2))
}

fn ask(sandbox: &mut Sandbox) -> Result<u64, String> {
    sandbox.call("try_double", (4_u64,)).unwrap()
}

fn over_budget() -> Result<u64, String> {
    Err(HostError::OverBudget.to_string())
}

#[test]
fn host_calls_over_a_windows_calls_are_refused_and_the_guest_goes_on() {
    with_rules(Rules::default().calls(Rate::new(3, HOUR)), |mut sandbox, _| {
        for _ in 0..3 {
            assert_eq!(ask(&mut sandbox), Ok(8));
        }
        assert_eq!(ask(&mut sandbox), over_budget());
        assert_eq!(sandbox.poison(), None);
    });
}

#[test]
fn host_calls_of_one_guest_call_are_counted_for_each_anew() {
    with_rules(Rules::default().calls_per_guest_call(2), |mut sandbox, _| {
        for _ in 0..3 {
            assert_eq!(sandbox.call::<u64>("double_times", (1_u64, 2_u32)).unwrap(), 4);
        }
        let error = sandbox.call::<u64>("double_times", (1_u64, 3_u32)).unwrap_err();
        assert!(matches!(error, CallError::Guest(GuestFault::Panic { .. })), "{error}");
    });
}

#[test]
fn a_denial_that_ends_the_guest_says_so_to_the_host_and_on_record() {
    let rules = Rules::default().calls(Rate::new(1, HOUR)).on_denial(OnDenial::Poison);
    with_rules(rules.alarm_after(1), |mut sandbox, trail| {
        assert_eq!(ask(&mut sandbox), Ok(8));
        let error = sandbox.call::<Result<u64, String>>("try_double", (4_u64,)).unwrap_err();
        let text = "guest: asked for the host function `double` and was ended, as the policy \
                    says: a budget of the sandbox is used up";
        assert_eq!(error.to_string(), text);
        assert_eq!(sandbox.poison(), Some(Poison::Denied));
        let events: Vec<_> = trail.records().into_iter().map(|record| record.event).collect();
        let [
            ..,
            Event::Alarm { function, denials: 1 },
            Event::CallFailed { .. },
            Event::Poisoned { cause },
        ] = &events[..]
        else {
            panic!("{events:#?}");
        };
        assert_eq!((&**function, &**cause), ("double", "a host call was denied"));
    });
}

#[test]
fn a_deferred_call_that_nobody_answers_is_answered_at_its_deadline() {
    with_raw(|builder| {
        for (export, limit) in [("call_and_wait", 5), ("call_and_spin", 5)] {
            let (give, handles) = mpsc::channel();
            let rules = Rules::default().deadline(Duration::from_millis(limit));
            let (sink, trail) = MemorySink::new(100);
            let builder =
                builder().policy(Policy::deny_all().allow_with("slow", rules)).audit(sink);
            let mut sandbox = deferring(builder, move |reply, _| give.send(reply).unwrap());
            let code = u64::from(HostError::Unavailable.code()) << 32;
            assert_eq!(sandbox.ask(export, [1, 0, 0, 0]).unwrap(), code, "{export}");
            assert_eq!((sandbox.stats().in_flight, sandbox.poison()), (0, None));
            let late: ReplyHandle<u64> = handles.recv().unwrap();
            late.reply(7);
            sandbox.run_until_idle().unwrap();
            let records = trail.records();
            let closed = records.iter().find_map(|record| match record.event {
                Event::HostCallClosed { outcome, took, .. } => Some((outcome, took)),
                _ => None,
            });
            let (outcome, took) = closed.unwrap();
            assert_eq!(outcome, Outcome::TimedOut);
            assert!(took >= Duration::from_millis(limit), "{took:?}");
        }
    });
}

#[test]
fn a_deferred_call_that_is_answered_in_time_is_not_disturbed_by_its_deadline() {
    with_raw(|builder| {
        let rules = Rules::default().deadline(HOUR);
        let builder = builder().policy(Policy::deny_all().allow_with("slow", rules));
        let mut sandbox = deferring(builder, |reply, n| {
            std::thread::spawn(move || reply.reply(n * 3));
        });
        for n in 1..=20 {
            assert_eq!(sandbox.ask("call_and_wait", [n, 0, 0, 0]).unwrap(), n * 3);
        }
    });
}

#[test]
fn a_policy_that_does_not_fit_is_refused_with_all_that_is_wrong_before_there_is_a_vm() {
    let image = Image::from_bytes(hosted()).unwrap();
    let policy = Policy::deny_all()
        .allow_with("double", Rules::default().deadline(Duration::ZERO).argument_bytes(1 << 20))
        .allow("trebble");
    let builder = double(Sandbox::builder(&image)).message_bytes(4096).policy(policy);
    // No backend is asked: there may be none.
    let error = builder.build().unwrap_err();
    let BuildError::Policy(findings) = &error else { panic!("{error}") };
    let [
        Finding::Zero { rule: "deadline", .. },
        Finding::AboveMessage { rule: "argument_bytes", bytes: 0x10_0000, limit: 4096, .. },
        Finding::NotImported { function, .. },
        Finding::NotRegistered { .. },
    ] = &findings[..]
    else {
        panic!("{findings:#?}");
    };
    assert_eq!(function, "trebble");
    assert!(error.to_string().starts_with("the policy is refused: function `double`: "), "{error}");
}

#[test]
fn a_policy_file_does_what_the_same_value_does() {
    let image = Image::from_bytes(hosted()).unwrap();
    let text = "[function.double]\nallow = true\ncalls = { amount = 1, per = \"1h\" }\n";
    let policy = Policy::from_toml(text).unwrap();
    let rules = Rules::default().calls(Rate::new(1, HOUR));
    assert_eq!(policy, Policy::deny_all().allow_with("double", rules));
    for backend in backends() {
        let builder = double(Sandbox::builder(&image)).backend(backend).policy(policy.clone());
        let mut sandbox = builder.build().unwrap();
        assert_eq!((ask(&mut sandbox), ask(&mut sandbox)), (Ok(8), over_budget()));
    }
}

/// Runs a test on every backend, with a sandbox of the hosted guest that has budgets.
fn with_budgets(budgets: Budgets, test: impl Fn(Sandbox)) {
    let image = Image::from_bytes(hosted()).unwrap();
    for backend in backends() {
        let policy = Policy::deny_all().allow("double").allow_log(LogLevel::Trace);
        let builder = double(Sandbox::builder(&image).backend(backend));
        test(builder.policy(policy.with_budgets(budgets)).build().unwrap());
    }
}

#[test]
fn a_guest_that_comes_out_too_often_is_ended_and_others_are_not() {
    with_budgets(Budgets::default().call_exits(11), |mut sandbox| {
        assert_eq!(sandbox.call::<u64>("double_times", (1_u64, 10_u32)).unwrap(), 1 << 10);
        assert_eq!(sandbox.call::<u64>("double_times", (1_u64, 10_u32)).unwrap(), 1 << 10);
        let error = sandbox.call::<u64>("double_times", (1_u64, 11_u32)).unwrap_err();
        assert!(
            matches!(error, CallError::Guest(GuestFault::TooManyExits { limit: 11 })),
            "{error}"
        );
        assert_eq!(sandbox.poison(), Some(Poison::Guest));
        assert_eq!(sandbox.stats().exits, 11 + 11 + 11);
    });
}

#[test]
fn log_records_over_a_windows_are_dropped_and_counted() {
    let budgets = Budgets::default().log_records(Rate::new(5, HOUR));
    with_budgets(budgets, |mut sandbox| {
        sandbox.call::<()>("log_times", (8_u32,)).unwrap();
        let stats = sandbox.stats();
        assert_eq!((stats.log_records, stats.log_dropped), (8, 3));
        assert_eq!(sandbox.poison(), None);
    });
}

#[test]
fn a_call_without_a_deadline_has_that_of_the_policy() {
    const LIMIT: Duration = Duration::from_millis(50);
    let image = Image::from_bytes(cellule_test_guests::basics()).unwrap();
    for backend in backends() {
        let policy = Policy::deny_all().with_budgets(Budgets::default().call_deadline(LIMIT));
        let builder = Sandbox::builder(&image).backend(backend).policy(policy);
        let mut sandbox = builder.build().unwrap();
        assert_eq!(sandbox.call::<i32>("add", (2, 3)).unwrap(), 5);
        let error = sandbox.call::<()>("spin", ()).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded { limit: LIMIT }), "{error}");
    }
}

#[test]
fn a_budget_that_nobody_enforces_is_refused_before_there_is_a_vm() {
    let image = Image::from_bytes(cellule_test_guests::basics()).unwrap();
    for budgets in [Budgets::default().call_cpu(HOUR), Budgets::default().cpu(Rate::new(1, HOUR))] {
        let policy = Policy::deny_all().with_budgets(budgets);
        let error = Sandbox::builder(&image).policy(policy).build().unwrap_err();
        let BuildError::Policy(findings) = error else { panic!("{error}") };
        assert!(matches!(&findings[..], [Finding::NotEnforced { .. }]), "{findings:?}");
    }
}
