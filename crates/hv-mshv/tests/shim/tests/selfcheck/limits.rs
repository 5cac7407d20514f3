//! What is refused, and that much at once works.

use std::os::fd::AsRawFd;
use std::thread;

use mshv_bindings::*;
use mshv_ioctls::{Mshv, MshvError};

use super::Case;
use super::guest::{CODE, EXECUTABLE, Guest, PAGE, WRITABLE, pages, partition, region};

pub(crate) const CASES: &[Case] = &[
    ("nothing is made in a partition that is not initialised", not_initialised),
    ("a VP index is taken once, and for good", index_clash),
    ("memory is mapped in exact ranges that do not overlap", ranges),
    ("reserved fields and unknown flags are refused", reserved),
    ("the crate's own way to a partition works", default_partition),
    ("a partition outlives the device, and a VP its partition's descriptor", descriptors),
    ("other files are left alone", other_files),
    ("what is not there is ENOTTY", not_there),
    ("many partitions run on many threads", many),
];

fn errno<T>(result: Result<T, MshvError>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.errno(),
    }
}

fn not_initialised() {
    let vm = Mshv::new().unwrap().create_vm_with_args(&Default::default()).unwrap();
    let memory = region(pages(PAGE), 0, PAGE, WRITABLE);
    assert_eq!(errno(vm.create_vcpu(0)), libc::EIO);
    assert_eq!(errno(vm.map_user_memory(memory)), libc::EIO);
    let code = hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES;
    vm.set_partition_property(code, 0).unwrap();
    vm.initialize().unwrap();
    vm.map_user_memory(memory).unwrap();
    vm.create_vcpu(0).unwrap();
    let late = vm.set_partition_property(code, 0);
    let status = HvError::InvalidPartitionState;
    assert!(matches!(late, Err(MshvError::Hypercall { status: Some(s), .. }) if s == status));
}

fn index_clash() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    assert!(vp.get_vp_reg_page().is_none(), "there should be no register page");
    assert_eq!(errno(vm.create_vcpu(0)), libc::EEXIST);
    vm.create_vcpu(1).unwrap();
    drop(vp);
    assert_eq!(errno(vm.create_vcpu(0)), libc::EEXIST);
}

fn ranges() {
    let vm = partition();
    let at = pages(8 * PAGE);
    let offset = |pages: usize| at.wrapping_add(pages * PAGE);
    let page = PAGE as u64;
    let first = region(at, 4 * page, 4 * PAGE, WRITABLE);
    vm.map_user_memory(first).unwrap();
    for (start, gpa) in [(4, 7), (4, 1), (3, 100)] {
        let other = region(offset(start), gpa * page, 4 * PAGE, WRITABLE);
        assert_eq!(errno(vm.map_user_memory(other)), libc::EEXIST, "{start} {gpa}");
    }
    vm.map_user_memory(region(offset(4), 8 * page, 4 * PAGE, EXECUTABLE)).unwrap();
    for other in [
        region(at, 4 * page, 3 * PAGE, 0),
        region(offset(1), 5 * page, 3 * PAGE, 0),
        region(at, 100 * page, 4 * PAGE, 0),
    ] {
        assert_eq!(errno(vm.unmap_user_memory(other)), libc::ENOENT);
    }
    for _ in 0..200 {
        vm.unmap_user_memory(first).unwrap();
        vm.map_user_memory(first).unwrap();
    }
    vm.unmap_user_memory(first).unwrap();
    assert_eq!(errno(vm.unmap_user_memory(first)), libc::ENOENT);
}

fn reserved() {
    let vm = partition();
    let good = region(pages(PAGE), 0, PAGE, WRITABLE);
    let mut rsvd = good;
    rsvd.rsvd[6] = 1;
    for bad in [
        mshv_user_mem_region { size: 0, ..good },
        mshv_user_mem_region { size: good.size - 1, ..good },
        mshv_user_mem_region { userspace_addr: good.userspace_addr + 1, ..good },
        mshv_user_mem_region { userspace_addr: !0xfff, ..good },
        mshv_user_mem_region { guest_pfn: u64::MAX, ..good },
        mshv_user_mem_region { flags: 8, ..good },
        rsvd,
    ] {
        assert_eq!(errno(vm.set_guest_memory(bad)), libc::EINVAL, "{bad:?}");
    }
    let args = mshv_create_partition_v2 { pt_flags: 1 << 63, ..Default::default() };
    assert_eq!(errno(Mshv::new().unwrap().create_vm_with_args(&args)), libc::EINVAL);
    let flags = 1 << MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES;
    let args = mshv_create_partition_v2 { pt_flags: flags, ..Default::default() };
    assert_eq!(errno(Mshv::new().unwrap().create_vm_with_args(&args)), libc::EINVAL);
}

fn default_partition() {
    let device = Mshv::new().unwrap();
    assert!(device.get_vmm_caps().is_ok());
    let vm = device.create_vm().unwrap();
    vm.initialize().unwrap();
    let vp = vm.create_vcpu(0).unwrap();
    assert!(!vm.get_msr_index_list().unwrap().is_empty());
    assert!(vp.get_regs().is_ok());
    let bits = hv_partition_property_code_HV_PARTITION_PROPERTY_PHYSICAL_ADDRESS_WIDTH;
    assert!((36..=52).contains(&vm.get_partition_property(bits).unwrap()));
    let frequency = hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_CLOCK_FREQUENCY;
    assert!(vm.get_partition_property(frequency).unwrap() > 100_000_000);
    assert!(vm.get_partition_property(0xdead).is_err());
}

fn descriptors() {
    // The device is gone by now: see `partition`.
    let Guest { vp, vm, .. } = Guest::ring3(&[0xe6, 1]);
    drop(vm);
    let message = vp.run().unwrap();
    assert_eq!({ message.to_ioport_info().unwrap().header.rip }, CODE as u64);
}

fn other_files() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(std::fs::read("/proc/self/comm").unwrap().last(), Some(&b'\n'));
    // SAFETY: it fails, as this is no terminal, and writes nothing.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TCGETS, 0) };
    assert_eq!(result, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOTTY));
}

fn not_there() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    assert_eq!(errno(vp.get_lapic()), libc::ENOTTY);
    assert_eq!(errno(vm.set_msi_routing(&mshv_user_irq_table::default())), libc::ENOTTY);
    assert_eq!(errno(vm.signal_event_direct(0, 0, 0)), libc::ENOTTY);
}

/// Each guest rings with its own number, and again, and is thrown away.
fn many() {
    const THREADS: u8 = 8;
    const EACH: u8 = 25;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..EACH {
                    let value = thread * EACH + number;
                    // mov al, value; out 1, al; inc al; out 1, al
                    let guest = Guest::ring3(&[0xb0, value, 0xe6, 1, 0xfe, 0xc0, 0xe6, 1]);
                    for due in [value, value + 1] {
                        let message = guest.run_to_port();
                        assert_eq!({ message.rax }, u64::from(due));
                        guest.advance(message.header.instruction_length());
                    }
                }
            });
        }
    });
}
