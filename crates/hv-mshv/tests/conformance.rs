//! The conformance suite, and what the steps of a run cost: on Microsoft's
//! hypervisor if there is one, and over a shim on KVM if there is that.
//!
//! The shim (`tests/shim`) is a library that is loaded into this program before
//! all others, run anew: it answers the calls to /dev/mshv by calls to KVM. The
//! backend is the same, unchanged. What a shim cannot show is in its own words.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use cellule_hv::conformance::{STACK, TEXT, Table, partition};
use cellule_hv::space::PAGE_BYTES;
use cellule_hv::{Counters, Exit, Gva, PageSet, Partition, Registers, Start};
use cellule_hv_kvm::Kvm;
use cellule_hv_mshv::Mshv;

/// Set in the program that runs over the shim.
const OVER_SHIM: &str = "CELLULE_MSHV_OVER_SHIM";
/// How long the tests may take there.
const PATIENCE: Duration = Duration::from_secs(120);

fn is_over_shim() -> bool {
    std::env::var_os(OVER_SHIM).is_some()
}

/// The hypervisor, if there is one: over the shim there is.
fn open() -> Option<Mshv> {
    let opened = Mshv::open();
    assert!(opened.is_ok() || !is_over_shim(), "the shim should make a VM: {opened:?}");
    opened.ok()
}

#[test]
fn mshv_conforms() {
    let Some(mshv) = open() else { return };
    println!("backends: mshv{}", if is_over_shim() { " over a shim on kvm" } else { "" });
    let mut table = Table::default();
    table.run(&mshv);
    println!("{table}");
    assert!(table.failures().is_empty(), "{:#?}", table.failures());
}

#[test]
fn the_tests_pass_over_a_shim_on_kvm() {
    if is_over_shim() {
        return;
    }
    // A device that is there, but is not KVM, is nothing to stand on either.
    if let Err(no_kvm) = Kvm::open() {
        if let Err(no_mshv) = Mshv::open() {
            println!("backends: none ({no_mshv}; and no KVM for a shim: {no_kvm})");
        }
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--nocapture", "--test-threads=1"]);
    // Memory is to be pinned as the real driver does, which is stricter.
    again.env("LD_PRELOAD", build_shim()).env(OVER_SHIM, "1").env("CELLULE_MSHV_SHIM_PIN", "1");
    let output = finish(again);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "over the shim: {}\n{errors}", output.status);
}

/// Builds the shim, and returns where the library is.
fn build_shim() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--manifest-path"]).arg(manifest);
    build.arg("--target-dir").arg(&target);
    let output = build.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the shim should build: {errors}");
    let is_library = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "so");
    let files = target.join("debug").read_dir().unwrap();
    files.map(|file| file.unwrap().path()).find(is_library).unwrap()
}

/// Waits for a program that may hang.
fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    finished
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| {
            let killed = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            panic!("the tests should end within {PATIENCE:?} (killed: {killed:?})");
        })
        .unwrap()
}

/// What an action adds to the counters.
fn cost(partition: &mut dyn Partition, act: impl FnOnce(&mut dyn Partition)) -> Counters {
    let before = partition.counters();
    act(partition);
    let after = partition.counters();
    Counters { exits: after.exits - before.exits, hypercalls: after.hypercalls - before.hypercalls }
}

fn run(partition: &mut dyn Partition) -> Exit {
    loop {
        match partition.run().unwrap() {
            // A late signal of another test.
            Exit::Kicked => {}
            exit => return exit,
        }
    }
}

/// `out 1, al` for ever.
const RING: [u8; 4] = [0xe6, 1, 0xeb, 0xfc];
/// `mov [0x402000], al`, `out 1, al`, `ud2`.
const WRITE_RING_FAULT: [u8; 11] = [0x88, 0x04, 0x25, 0, 0x20, 0x40, 0, 0xe6, 1, 0x0f, 0x0b];
const UNDEFINED: u8 = 6;

fn start() -> Registers {
    let (entry, stack) = (Gva(TEXT), Gva(STACK + PAGE_BYTES));
    Registers::start(Start { entry, stack, argument: Gva(0) })
}

/// Prints what each step costs.
#[test]
fn a_doorbell_costs_a_run_and_at_most_one_call() {
    let Some(mshv) = open() else { return };
    let mut partition = partition(&mshv, &RING).unwrap();
    let first = cost(&mut *partition, |partition| {
        assert_eq!(run(partition), Exit::Doorbell(0));
    });
    assert_eq!(first.hypercalls, first.exits, "nothing is to be told at first");
    let second = cost(&mut *partition, |partition| {
        assert_eq!(run(partition), Exit::Doorbell(0));
    });
    let position = cost(&mut *partition, |partition| {
        let position = partition.position().unwrap().unwrap();
        assert_eq!(position.rip, Gva(TEXT + 2));
        assert_eq!(partition.position().unwrap(), Some(position));
        partition.divert(position).unwrap();
    });
    let registers = cost(&mut *partition, |partition| {
        assert_eq!(partition.registers().unwrap().rip, TEXT + 2);
    });
    println!("a doorbell {second:?}, position and divert {position:?}, registers {registers:?}");
    assert!(second.hypercalls <= second.exits + 1, "RIP, and runs");
    assert!(position.exits == 0 && position.hypercalls <= 1);
    assert!(registers.exits == 0 && registers.hypercalls <= 1);
}

/// Prints what each step costs.
#[test]
fn a_guest_that_faults_without_an_address_costs_no_call_for_it() {
    let Some(mshv) = open() else { return };
    let mut partition = partition(&mshv, &WRITE_RING_FAULT[7..]).unwrap();
    assert_eq!(run(&mut *partition), Exit::Doorbell(0));
    let fault = cost(&mut *partition, |partition| {
        let Exit::Fault(fault) = run(partition) else { panic!("it should fault") };
        assert_eq!(fault.vector, UNDEFINED);
    });
    let restart = cost(&mut *partition, |partition| {
        partition.restart(&start()).unwrap();
        assert_eq!(run(partition), Exit::Doorbell(0));
    });
    println!("a fault {fault:?}, restart and a doorbell {restart:?}");
    assert!(fault.hypercalls <= fault.exits + 1, "RIP, and runs");
    assert_eq!(restart.hypercalls, restart.exits + 1, "all registers, and runs");
}

/// Prints what each step costs.
#[test]
fn a_written_page_is_in_the_account_until_it_is_rearmed() {
    let Some(mshv) = open() else { return };
    let mut partition = partition(&mshv, &WRITE_RING_FAULT).unwrap();
    let track = cost(&mut *partition, |partition| partition.track().unwrap());
    let told = |partition: &mut dyn Partition| {
        let mut pages = PageSet::default();
        partition.dirty(&mut pages).unwrap();
        pages
    };
    assert!(told(&mut *partition).is_empty(), "nothing was written");
    assert_eq!(run(&mut *partition), Exit::Doorbell(0));
    let mut pages = PageSet::default();
    let dirty = cost(&mut *partition, |partition| pages = told(partition));
    assert_eq!(pages.iter().collect::<Vec<_>>(), [0], "the data page");
    assert_eq!(told(&mut *partition), pages, "it stays in the account");
    let rearm = cost(&mut *partition, |partition| partition.rearm(&pages).unwrap());
    assert!(told(&mut *partition).is_empty());
    partition.position().unwrap();
    partition.restart(&start()).unwrap();
    assert_eq!(run(&mut *partition), Exit::Doorbell(0));
    assert_eq!(told(&mut *partition), pages, "it was written again");
    println!("track {track:?}, dirty {dirty:?}, rearm {rearm:?}");
    assert_eq!(
        [track, dirty, rearm].map(|cost| (cost.exits, cost.hypercalls)),
        [(0, 2), (0, 1), (0, 1)]
    );
}
