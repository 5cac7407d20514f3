//! What is measured: sandboxes of the test guests, through the public API alone.

use std::error::Error;

use cellule::{Backend, Image, Policy, Sandbox, Stats};

/// Whatever stopped a measurement.
pub type Failure = Box<dyn Error>;

/// A kibibyte.
pub const KIB: u64 = 1 << 10;
/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// The smaller of the two heaps that creation is measured with.
pub const SMALL_HEAP_BYTES: u64 = 64 * KIB;
/// The larger one.
pub const LARGE_HEAP_BYTES: u64 = 256 * MIB;

/// Whether sandboxes run on KVM here, whose floor most quantities are measured
/// by. If not, says on one line why.
pub fn ready() -> bool {
    match Backend::Auto.probe() {
        Ok(Backend::Kvm) => true,
        Ok(other) => {
            println!("sandboxes run on {other} here: what is measured beside bare KVM is left out");
            false
        }
        Err(missing) => {
            println!("{missing}");
            false
        }
    }
}

/// The image of the guest that imports nothing.
///
/// # Errors
///
/// The image's own.
pub fn basics_image() -> Result<Image, Failure> {
    Ok(Image::from_bytes(cellule_test_guests::basics())?)
}

/// A sandbox of the guest that imports nothing.
///
/// # Errors
///
/// The image's and the sandbox's own.
pub fn basics() -> Result<Sandbox, Failure> {
    Ok(Sandbox::builder(&basics_image()?).build()?)
}

/// A sandbox of the guest that calls the host function `double`.
///
/// # Errors
///
/// The image's and the sandbox's own.
pub fn hosted() -> Result<Sandbox, Failure> {
    let image = Image::from_bytes(cellule_test_guests::hosted())?;
    let builder = Sandbox::builder(&image).host_function("double", |n: u64| n.wrapping_mul(2));
    Ok(builder.policy(Policy::deny_all().allow("double")).build()?)
}

/// A sandbox of the guest that measures its own kernel.
///
/// # Errors
///
/// The image's and the sandbox's own.
pub fn costs() -> Result<Sandbox, Failure> {
    Ok(Sandbox::builder(&Image::from_bytes(cellule_test_guests::costs())?).build()?)
}

/// Builds a sandbox, makes its first call, and drops it. Returns what it counted.
///
/// # Errors
///
/// The sandbox's own.
pub fn create_call_drop(image: &Image, heap_bytes: u64) -> Result<Stats, Failure> {
    let mut sandbox = Sandbox::builder(image).heap_bytes(heap_bytes).build()?;
    let sum: i32 = sandbox.call("add", (2, 3))?;
    debug_assert_eq!(sum, 5);
    Ok(sandbox.stats())
}
