//! The table of backends: what the same steps cost on each, beside its raw floor.

use cellule::{Backend, Image, Policy, Sandbox};
use cellule_benches::floor::Floor;
use cellule_benches::sample::{Effort, Operation, Samples, interleave};
use cellule_benches::subject::Failure;
use cellule_benches::traced::{Pinned, Traced};
use cellule_hv::Hypervisor;
use cellule_hv::gauge::{Maker, Returner, Ringer};

use crate::table::{Budget, Row, Table};

/// How much of each step is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) calls: Effort,
    pub(crate) creations: Effort,
}

/// The raw floor of a backend: the doorbell, and making, ringing, unmaking.
struct Bare<'a> {
    ring: Operation<'a>,
    make: Operation<'a>,
}

/// The names of a backend's rows, in order.
type Names = [&'static str; 6];

/// Prints the table of all backends that this machine has.
pub(crate) fn report(plan: Plan) -> Result<(), Failure> {
    let mut table = Table::default();
    for backend in Backend::usable() {
        match backend {
            Backend::Kvm => {
                let floor = Floor::new()?;
                let mut bell = floor.create()?;
                let bare = Bare {
                    ring: Box::new(|| Ok(bell.ring()?)),
                    make: Box::new(|| Ok(floor.create_run_close()?)),
                };
                let names = [
                    "kvm_doorbell",
                    "kvm_call",
                    "kvm_host_call",
                    "kvm_restore_1_page",
                    "kvm_create_ring_drop",
                    "kvm_create_call_drop",
                ];
                rows(plan, backend, &cellule_hv_kvm::Kvm::open()?, bare, names, None, &mut table)?;
            }
            Backend::Process => {
                let _pinned = Pinned::here()?;
                let mut child = Traced::new()?;
                let bare = Bare {
                    ring: Box::new(move || Ok(child.ring()?)),
                    make: Box::new(|| Ok(Traced::create_ring_kill()?)),
                };
                let names = [
                    "process_doorbell",
                    "process_call",
                    "process_host_call",
                    "process_restore_1_page",
                    "process_create_ring_drop",
                    "process_create_call_drop",
                ];
                let process = cellule_hv_process::Process::open()?;
                rows(plan, backend, &process, bare, names, Some(1.3), &mut table)?;
            }
            other => println!("{other}: there is no raw floor to measure it by here"),
        }
    }
    print!("\n{table}");
    Ok(())
}

fn rows(
    plan: Plan,
    backend: Backend,
    hypervisor: &dyn Hypervisor,
    bare: Bare<'_>,
    names: Names,
    call_budget: Option<f64>,
    table: &mut Table,
) -> Result<(), Failure> {
    let [of_doorbell, of_call, of_host_call, of_restore, of_create, of_sandbox] = names;
    let Bare { ring: bare_ring, make: bare_make } = bare;
    let mut ringer = Ringer::new(hypervisor)?;
    let (mut writer, mut returner) = (Returner::new(hypervisor)?, Returner::new(hypervisor)?);
    let (mut calling, mut hosted) = (sandbox(backend)?, sandbox(backend)?);
    let double = calling.function::<(u64, u32), u64>("double_times")?;
    let samples = interleave(
        plan.calls,
        &mut [
            bare_ring,
            Box::new(|| Ok(ringer.ring()?)),
            Box::new(|| answer(double.call(&mut calling, (1, 0))?, 1)),
            Box::new(|| answer(double.call(&mut hosted, (1, 1))?, 2)),
            Box::new(|| Ok(writer.write_and_ring()?)),
            Box::new(|| {
                returner.write_and_ring()?;
                Ok(returner.restore().map(drop)?)
            }),
        ],
    )?;
    let [floor, doorbell, call, with_host_call, written, returned] = all(samples)?;
    let restore = returned.per_step_over(&written, 1);
    let host_call = with_host_call.per_step_over(&call, 1);
    table.push(Row::new(of_doorbell, &floor, &doorbell));
    let row = Row::new(of_call, &floor, &call);
    table.push(match call_budget {
        Some(most) => row.within(Budget::Ratio(most)),
        None => row,
    });
    table.push(Row::new(of_host_call, &floor, &host_call));
    table.push(Row::new(of_restore, &floor, &restore));
    let maker = Maker::new(hypervisor)?;
    let samples = interleave(
        plan.creations,
        &mut [
            bare_make,
            Box::new(|| Ok(maker.make()?)),
            Box::new(|| answer(double.call(&mut sandbox(backend)?, (1, 0))?, 1)),
        ],
    )?;
    let [floor, create, whole] = all(samples)?;
    table.push(Row::new(of_create, &floor, &create));
    table.push(Row::new(of_sandbox, &floor, &whole));
    Ok(())
}

/// A sandbox of the guest that calls the host function `double` as often as it is told.
fn sandbox(backend: Backend) -> Result<Sandbox, Failure> {
    let image = image()?;
    let builder = Sandbox::builder(&image).host_function("double", |n: u64| n.wrapping_mul(2));
    Ok(builder.policy(Policy::deny_all().allow("double")).backend(backend).build()?)
}

fn image() -> Result<Image, Failure> {
    static IMAGE: std::sync::OnceLock<Image> = std::sync::OnceLock::new();
    if let Some(image) = IMAGE.get() {
        return Ok(image.clone());
    }
    let image = Image::from_bytes(cellule_test_guests::hosted())?;
    Ok(IMAGE.get_or_init(|| image).clone())
}

fn answer(came: u64, due: u64) -> Result<(), Failure> {
    if came == due { Ok(()) } else { Err("the guest's answer is wrong".into()) }
}

fn all<const N: usize>(samples: Vec<Samples>) -> Result<[Samples; N], Failure> {
    samples.try_into().map_err(|_| "some contestant was not measured".into())
}
