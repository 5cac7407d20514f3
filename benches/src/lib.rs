//! What Cellule costs, next to what the bare hypervisor costs in the same run.
//!
//! * [`floor`]: the bare hypervisor; [`traced`]: what takes its place without one.
//! * [`subject`]: the sandboxes that are compared with it.
//! * [`sample`]: contestants that take turns, medians and 99th percentiles.
//! * [`peers`]: tasks and messages of threads and of an embedded executor.
//! * [`memory`]: resident bytes of idle sandboxes.
//!
//! `cargo run --release -p cellule-benches` prints the table with the budgets;
//! the benches in `criterion/` follow one quantity each over time. See `README.md`.

pub mod floor;
pub mod memory;
pub mod peers;
pub mod sample;
pub mod subject;
pub mod traced;
