//! What the services of the guest's kernel cost, next to their budgets and to
//! what a user would otherwise pick.

use std::time::{Duration, Instant};

use cellule::Sandbox;
use cellule_benches::floor::Floor;
use cellule_benches::peers;
use cellule_benches::subject::{Failure, costs, hosted};

/// Operations within a sample of the guest's: see `costs.rs` of the test guests.
const BATCH: f64 = 16.0;

/// One service: what the guest exports, what it is, how many cycles it may take,
/// and how many of it one exported operation is.
struct Service {
    export: &'static str,
    name: &'static str,
    most_cycles: u32,
    operations: f64,
    threads: Option<fn(u32) -> Vec<f64>>,
    embassy: Option<fn(u32) -> Vec<f64>>,
}

const SERVICES: [Service; 6] = [
    Service {
        export: "two_switches",
        name: "voluntary switch",
        most_cycles: 60,
        operations: 2.0,
        threads: Some(peers::thread_switch),
        embassy: Some(peers::embassy_switch),
    },
    Service {
        export: "give_and_take",
        name: "semaphore give + take",
        most_cycles: 40,
        operations: 1.0,
        threads: Some(peers::thread_semaphore),
        embassy: None,
    },
    Service {
        export: "lock_and_unlock",
        name: "mutex lock + unlock",
        most_cycles: 40,
        operations: 1.0,
        threads: Some(peers::thread_mutex),
        embassy: None,
    },
    Service {
        export: "send_and_receive",
        name: "queue send + receive, 16 bytes",
        most_cycles: 100,
        operations: 1.0,
        threads: Some(peers::thread_queue),
        embassy: Some(peers::embassy_queue),
    },
    Service {
        // There and back: the urgent task also waits again.
        export: "hand_over",
        name: "give to an urgent task, and back",
        most_cycles: 250,
        operations: 1.0,
        threads: Some(peers::thread_hand_over),
        embassy: None,
    },
    Service {
        export: "message_round_trip",
        name: "message send + receive + reply",
        most_cycles: 400,
        operations: 1.0,
        threads: Some(peers::thread_message),
        embassy: Some(peers::embassy_message),
    },
];

/// Sorted samples of one operation.
struct Sorted(Vec<f64>);

impl Sorted {
    fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank between 0 and the number of samples"
    )]
    fn at(&self, quantile: f64) -> f64 {
        let rank = (self.0.len().saturating_sub(1) as f64 * quantile).round() as usize;
        self.0.get(rank).copied().unwrap_or(f64::NAN)
    }

    /// How many samples are below each of the steps, in per cent, as one line.
    #[allow(clippy::cast_precision_loss, reason = "numbers of samples")]
    fn histogram(&self, steps: &[f64]) -> String {
        let mut line = String::new();
        let mut before = 0;
        for step in steps {
            let below = self.0.partition_point(|sample| sample < step);
            let share = (below - before) as f64 * 100.0 / self.0.len() as f64;
            line += &format!("  <{step:.0}: {share:.1}%");
            before = below;
        }
        let rest = (self.0.len() - before) as f64 * 100.0 / self.0.len() as f64;
        line + &format!("  more: {rest:.1}%")
    }
}

/// Prints the costs of all services, and of a wake-up by a timer.
pub(crate) fn report(samples: u32, wakes: u32, floor: &Floor) -> Result<(), Failure> {
    let host_call_ns = host_call(samples.min(2000))?;
    let mut sandbox = costs()?;
    let cycles_per_ns = frequency(&mut sandbox)?;
    println!(
        "\n{:<34} {:>7} {:>7} {:>7} {:>8} {:>7} {:>6}  {:>8} {:>9} {:>11} {:>9}",
        "in the guest, in cycles",
        "min",
        "median",
        "p99",
        "max",
        "budget",
        "exits",
        "ns",
        "embassy",
        "std threads",
        "host call"
    );
    for service in &SERVICES {
        let (sorted, exits) = measure(&mut sandbox, service, samples)?;
        let met = if sorted.at(0.5) <= f64::from(service.most_cycles) { "" } else { " MISSED" };
        let peer = |peer: Option<fn(u32) -> Vec<f64>>| match peer {
            Some(peer) => format!("{:.0}", Sorted::new(peer(samples.min(2000))).at(0.5)),
            None => "-".to_owned(),
        };
        println!(
            "{:<34} {:>7.1} {:>7.1} {:>7.1} {:>8.0} {:>7} {:>6}  {:>8.1} {:>9} {:>11} {:>9.0}{met}",
            service.name,
            sorted.at(0.0),
            sorted.at(0.5),
            sorted.at(0.99),
            sorted.at(1.0),
            service.most_cycles,
            exits,
            sorted.at(0.5) / cycles_per_ns,
            peer(service.embassy),
            peer(service.threads),
            host_call_ns,
        );
        let steps = [20.0, 40.0, 60.0, 100.0, 250.0, 400.0, 1000.0];
        println!("   {}", sorted.histogram(&steps));
    }
    println!(
        "   (cycles of the time-stamp counter, {cycles_per_ns:.2} a nanosecond; peers in ns, on this host)"
    );
    wake_up(&mut sandbox, wakes, floor)
}

/// Cycles for each operation, and the exits of all of them but the call's own.
fn measure(
    sandbox: &mut Sandbox,
    service: &Service,
    samples: u32,
) -> Result<(Sorted, u64), Failure> {
    // The first makes the stacks and the heap be there.
    sandbox.call::<Vec<u32>>(service.export, (10_u32,))?;
    sandbox.call::<Vec<u32>>(service.export, (samples,))?;
    let before = sandbox.stats();
    let cycles: Vec<u32> = sandbox.call(service.export, (samples,))?;
    let exits = sandbox.stats().exits - before.exits - 1;
    let each = cycles.into_iter().map(|c| f64::from(c) / BATCH / service.operations);
    Ok((Sorted::new(each.collect()), exits))
}

/// What a host call takes, in nanoseconds: the price of leaving the guest for it.
fn host_call(samples: u32) -> Result<f64, Failure> {
    let mut sandbox = hosted()?;
    let mut taken = Vec::new();
    for _ in 0..samples.max(100) {
        let began = Instant::now();
        sandbox.call::<u64>("double_times", (1_u64, 4_u32))?;
        let four = began.elapsed();
        let began = Instant::now();
        sandbox.call::<u64>("double_times", (1_u64, 0_u32))?;
        taken.push((four.as_secs_f64() - began.elapsed().as_secs_f64()) * 1e9 / 4.0);
    }
    Ok(Sorted::new(taken).at(0.5))
}

/// Cycles of the guest's counter in a nanosecond of the host's.
fn frequency(sandbox: &mut Sandbox) -> Result<f64, Failure> {
    #[allow(clippy::cast_precision_loss, reason = "differences, far below 2^52")]
    let read = |sandbox: &mut Sandbox| -> Result<(f64, Instant), Failure> {
        let cycles: u64 = sandbox.call("counter_now", ())?;
        Ok((cycles as f64, Instant::now()))
    };
    let (first, began) = read(sandbox)?;
    while began.elapsed() < Duration::from_millis(100) {
        std::hint::spin_loop();
    }
    let (second, ended) = read(sandbox)?;
    Ok((second - first) / (ended - began).as_secs_f64() / 1e9)
}

/// How late an urgent task runs in a guest that is busy, over the lateness with
/// which the same timer signal stops a bare vCPU.
fn wake_up(sandbox: &mut Sandbox, wakes: u32, floor: &Floor) -> Result<(), Failure> {
    const SLEEP: Duration = Duration::from_micros(500);
    let mut spinner = floor.spinner()?;
    let (mut kicks, mut late) = (Vec::new(), Vec::new());
    let before = sandbox.stats();
    for _ in 0..wakes.div_ceil(10) {
        for _ in 0..10 {
            kicks.push(spinner.lateness(SLEEP)?.as_secs_f64() * 1e6);
        }
        let nanos: Vec<u32> = sandbox.call("lateness_while_busy", (10_u32, 500_000_u64))?;
        late.extend(nanos.into_iter().map(|ns| f64::from(ns) / 1e3));
    }
    let after = sandbox.stats();
    let (kicks, late) = (Sorted::new(kicks), Sorted::new(late));
    println!(
        "\n{:<34} {:>7} {:>7} {:>7} {:>8}",
        "wake-up by a timer, in us", "min", "median", "p99", "max"
    );
    for (name, sorted) in
        [("bare kick of a spinning vCPU", &kicks), ("urgent task in a busy guest", &late)]
    {
        let [min, median, p99, max] = [0.0, 0.5, 0.99, 1.0].map(|q| sorted.at(q));
        println!("{name:<34} {min:>7.1} {median:>7.1} {p99:>7.1} {max:>8.0}");
    }
    println!("   {}", late.histogram(&[50.0, 75.0, 100.0, 150.0, 250.0, 500.0]));
    println!(
        "   ratio of the medians {:.2}; {} wake-ups: {} kicks, {} upcalls, {} exits",
        late.at(0.5) / kicks.at(0.5),
        late.0.len(),
        after.kicks - before.kicks,
        after.upcalls - before.upcalls,
        after.exits - before.exits,
    );
    Ok(())
}
