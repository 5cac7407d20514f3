//! Prints what Cellule costs next to the raw floor, against the budgets.
//!
//! `cargo run --release -p cellule-benches [-- --quick]`

mod audit;
mod backends;
mod table;
mod tasks;

use cellule::{Sandbox, Stats};
use cellule_benches::floor::Floor;
use cellule_benches::memory;
use cellule_benches::sample::{Effort, Operation, Samples, interleave};
use cellule_benches::subject::{
    Failure, LARGE_HEAP_BYTES, MIB, SMALL_HEAP_BYTES, basics, basics_image, create_call_drop,
    hosted, ready,
};
use table::{Budget, Row, Table};

/// How much of everything is measured.
struct Plan {
    calls: Effort,
    creations: Effort,
    copies: Effort,
    sandboxes: u32,
    /// Samples of each service of the guest's kernel, and wake-ups by its timers.
    services: u32,
    wakes: u32,
}

/// Under a minute.
const FULL: Plan = Plan {
    calls: Effort { rounds: 400, block: 25 },
    creations: Effort { rounds: 300, block: 4 },
    copies: Effort { rounds: 200, block: 5 },
    sandboxes: 200,
    services: 20_000,
    wakes: 1000,
};

/// Some seconds: that everything runs, not how fast.
const QUICK: Plan = Plan {
    calls: Effort { rounds: 20, block: 10 },
    creations: Effort { rounds: 15, block: 2 },
    copies: Effort { rounds: 15, block: 2 },
    sandboxes: 20,
    services: 200,
    wakes: 20,
};

fn main() -> Result<(), Failure> {
    let plan = match std::env::args().nth(1).as_deref() {
        None => FULL,
        Some("--quick") => QUICK,
        Some(other) => return Err(format!("{other}: the only option is --quick").into()),
    };
    let each = backends::Plan { calls: plan.calls, creations: plan.creations };
    backends::report(each)?;
    if !ready() {
        return Ok(());
    }
    let floor = Floor::new()?;
    let mut table = Table::default();
    calls(&plan, &floor, &mut table)?;
    host_calls(&plan, &floor, &mut table)?;
    creations(&plan, &floor, &mut table)?;
    copies(&plan, &mut table)?;
    resident(&plan, &mut table)?;
    print!("\n{table}");
    tasks::report(plan.services, plan.wakes, &floor)?;
    let Effort { rounds, block } = plan.calls;
    audit::report(Effort { rounds: rounds / 2, block: block / 5 }, &floor)
}

/// Calls on a live sandbox, against one doorbell round trip.
fn calls(plan: &Plan, floor: &Floor, table: &mut Table) -> Result<(), Failure> {
    let mut bell = floor.create()?;
    let (mut typed, mut named, mut echoing) = (basics()?, basics()?, basics()?);
    let add = typed.function::<(i32, i32), i32>("add")?;
    let echo = echoing.function::<(&str,), String>("echo")?;
    let text = "x".repeat(100);
    let samples = interleave(
        plan.calls,
        &mut [
            Box::new(|| Ok(bell.ring()?)),
            Box::new(|| check(add.call(&mut typed, (2, 3))? == 5)),
            Box::new(|| check(named.call::<i32>("add", (2, 3))? == 5)),
            Box::new(|| check(echo.call(&mut echoing, (&text,))? == text)),
        ],
    )?;
    let [bell, by_handle, by_name, by_echo] = four(samples)?;
    let row = |quantity, subject| Row::new(quantity, &bell, subject);
    let counted = cost(&mut typed, |s| Ok(add.call(s, (2, 3)).map(drop)?))?;
    table.push(row("call_add", &by_handle).within(Budget::Ratio(1.15)).costing(counted));
    let counted = cost(&mut named, |s| Ok(s.call::<i32>("add", (2, 3)).map(drop)?))?;
    table.push(row("call_add_by_name", &by_name).costing(counted));
    let counted = cost(&mut echoing, |s| Ok(echo.call(s, (&text,)).map(drop)?))?;
    table.push(row("call_echo_100_bytes", &by_echo).within(Budget::Ratio(1.2)).costing(counted));
    Ok(())
}

/// What one host call adds to a call, against one more doorbell round trip.
fn host_calls(plan: &Plan, floor: &Floor, table: &mut Table) -> Result<(), Failure> {
    let mut bell = floor.create()?;
    let mut sandboxes = [hosted()?, hosted()?, hosted()?];
    let times = [0_u32, 1, 10];
    let mut contestants: Vec<Operation<'_>> = vec![Box::new(|| Ok(bell.ring()?))];
    for (sandbox, times) in sandboxes.iter_mut().zip(times) {
        let double = sandbox.function::<(u64, u32), u64>("double_times")?;
        contestants.push(Box::new(move || check(double.call(sandbox, (1, times))? == 1 << times)));
    }
    let samples = interleave(plan.calls, &mut contestants)?;
    drop(contestants);
    let [bell, none, one, ten] = four(samples)?;
    let mut counted = [Stats::default(); 3];
    for ((sandbox, times), counted) in sandboxes.iter_mut().zip(times).zip(&mut counted) {
        *counted =
            cost(sandbox, |s| Ok(s.call::<u64>("double_times", (1_u64, times)).map(drop)?))?;
    }
    let [without, with_one, with_ten] = counted;
    for (quantity, samples, steps, counted) in
        [("host_call_1", one, 1, with_one), ("host_call_each_of_10", ten, 10, with_ten)]
    {
        let each = samples.per_step_over(&none, steps);
        let counted = per_step(&counted, &without, u64::from(steps));
        table.push(Row::new(quantity, &bell, &each).within(Budget::Ratio(1.15)).costing(counted));
    }
    Ok(())
}

/// From image to first answer and back to nothing, against the bare VM: first
/// with no other VM in this process, then beside one that stands idle.
///
/// The difference is the kernel's: with the first VM of a machine KVM switches
/// itself on, processor by processor, and patches its own text; with the last
/// it undoes that. VMs of other programs hide it, so that only the second set
/// can be repeated.
fn creations(plan: &Plan, floor: &Floor, table: &mut Table) -> Result<(), Failure> {
    const ALONE: [&str; 3] = [
        "create_call_drop_64k_heap_alone",
        "create_call_drop_256m_heap_alone",
        "create_256m_over_64k_heap_alone",
    ];
    const BESIDE: [&str; 3] =
        ["create_call_drop_64k_heap", "create_call_drop_256m_heap", "create_256m_over_64k_heap"];
    create_call_drops(plan, floor, ALONE, table)?;
    let mut other = floor.create()?;
    other.ring()?;
    create_call_drops(plan, floor, BESIDE, table)
}

fn create_call_drops(
    plan: &Plan,
    floor: &Floor,
    [of_small, of_large, of_both]: [&'static str; 3],
    table: &mut Table,
) -> Result<(), Failure> {
    let image = basics_image()?;
    let samples = interleave(
        plan.creations,
        &mut [
            Box::new(|| Ok(floor.create_run_close()?)),
            Box::new(|| create_call_drop(&image, SMALL_HEAP_BYTES).map(drop)),
            Box::new(|| create_call_drop(&image, LARGE_HEAP_BYTES).map(drop)),
        ],
    )?;
    let [bare, small, large] =
        <[Samples; 3]>::try_from(samples).map_err(|_| "three contestants")?;
    for (quantity, samples, heap) in
        [(of_small, &small, SMALL_HEAP_BYTES), (of_large, &large, LARGE_HEAP_BYTES)]
    {
        let counted = create_call_drop(&image, heap)?;
        table.push(Row::new(quantity, &bare, samples).within(Budget::Ratio(1.5)).costing(counted));
    }
    table.push(Row::new(of_both, &small, &large).within(Budget::Ratio(1.1)));
    Ok(())
}

/// A mebibyte in, a mebibyte out, against `memcpy` of as much into warm memory.
fn copies(plan: &Plan, table: &mut Table) -> Result<(), Failure> {
    let bytes = vec![7_u8; usize::try_from(MIB)?];
    let mut copy = bytes.clone();
    let (mut taking, mut giving, mut making) = (basics()?, basics()?, basics()?);
    let length = taking.function::<(&[u8],), u64>("length")?;
    let blob = giving.function::<(), Vec<u8>>("blob")?;
    let make = making.function::<(u32,), Vec<u8>>("make_bytes")?;
    let mib = u32::try_from(MIB)?;
    let samples = interleave(
        plan.copies,
        &mut [
            Box::new(|| {
                std::hint::black_box(&mut copy).copy_from_slice(std::hint::black_box(&bytes));
                Ok(())
            }),
            Box::new(|| check(length.call(&mut taking, (&bytes,))? == MIB)),
            Box::new(|| check(blob.call(&mut giving, ())?.len() == bytes.len())),
            Box::new(|| check(make.call(&mut making, (mib,))?.len() == bytes.len())),
        ],
    )?;
    let [memcpy, argument, constant, made] = four(samples)?;
    let row = |quantity, subject| {
        Row::new(quantity, &memcpy, subject).within(Budget::Throughput { moved: MIB, least: 8.0 })
    };
    let counted = cost(&mut taking, |s| Ok(length.call(s, (&bytes,)).map(drop)?))?;
    table.push(row("argument_1_mib", &argument).costing(counted));
    let counted = cost(&mut giving, |s| Ok(blob.call(s, ()).map(drop)?))?;
    table.push(row("result_1_mib", &constant).costing(counted));
    let counted = cost(&mut making, |s| Ok(make.call(s, (mib,)).map(drop)?))?;
    table.push(row("result_1_mib_made_by_guest", &made).costing(counted));
    Ok(())
}

fn resident(plan: &Plan, table: &mut Table) -> Result<(), Failure> {
    let resident = memory::measure(plan.sandboxes)?;
    let budget = Budget::Resident { most_kib: 100.0 };
    table.push(Row::resident("rss_per_built_sandbox", resident.built_bytes).within(budget));
    table.push(Row::resident("rss_per_called_sandbox", resident.called_bytes).within(budget));
    Ok(())
}

/// What one operation adds to a sandbox's counters.
fn cost(
    sandbox: &mut Sandbox,
    operation: impl FnOnce(&mut Sandbox) -> Result<(), Failure>,
) -> Result<Stats, Failure> {
    let before = sandbox.stats();
    operation(sandbox)?;
    Ok(per_step(&sandbox.stats(), &before, 1))
}

/// What each of `steps` steps added between two readings.
fn per_step(after: &Stats, before: &Stats, steps: u64) -> Stats {
    let mut each = Stats::default();
    each.exits = (after.exits - before.exits) / steps;
    each.hypervisor_calls = (after.hypervisor_calls - before.hypervisor_calls) / steps;
    each.bytes_in = (after.bytes_in - before.bytes_in) / steps;
    each.bytes_out = (after.bytes_out - before.bytes_out) / steps;
    each
}

fn check(holds: bool) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err("the guest's answer is wrong".into()) }
}

fn four(samples: Vec<Samples>) -> Result<[Samples; 4], Failure> {
    samples.try_into().map_err(|_| "four contestants were to be measured".into())
}
