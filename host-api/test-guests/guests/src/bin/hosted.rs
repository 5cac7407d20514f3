//! Calls host functions and writes log records.
#![no_std]
#![no_main]

use cellule_guest::prelude::*;

#[host_function]
fn double(n: u64) -> Result<u64, HostError>;

#[guest_function]
fn double_by_host(n: u64) -> u64 {
    double(n).expect("the host doubles")
}

#[guest_function]
fn try_double(n: u64) -> Result<u64, String> {
    double(n).map_err(|error| error.to_string())
}

#[guest_function]
fn double_times(n: u64, times: u32) -> u64 {
    (0..times).fold(n, |n, _| double(n).expect("the host doubles"))
}

#[guest_function]
fn nothing() {}

#[guest_function]
fn log_times(times: u32) {
    for n in 0..times {
        info!("record {n}");
    }
}

#[guest_function]
fn log_text(text: &str) {
    warn!("{text}");
}

/// Loads patterns into vector and x87 registers, calls the host in between,
/// and returns whether all are as they were.
#[guest_function]
fn vectors_survive_a_doorbell() -> bool {
    vectors::survive()
}

mod vectors {
    use core::arch::asm;

    /// Four 64-bit lanes for each of sixteen registers.
    #[repr(C, align(32))]
    struct Lanes([u64; 64]);

    pub fn survive() -> bool {
        let mut before = Lanes([0; 64]);
        for (index, lane) in before.0.iter_mut().enumerate() {
            *lane = 0x0101_0101_0101_0101_u64.wrapping_mul(index as u64 + 1);
        }
        let mut after = Lanes([0; 64]);
        let x87 = 1.25_f64;
        let mut x87_after = 0.0_f64;
        let mut mxcsr_after = 0_u32;
        // Round towards zero, all exceptions masked: not the default.
        let mxcsr = 0x7f80_u32;
        let usual = 0x1f80_u32;
        // SAFETY: the pointers are to live, aligned locals of the sizes that
        // are moved; all registers that change are declared; `out 1` with
        // AL = 1 is the doorbell's Submit, after which the guest goes on.
        unsafe {
            asm!(
                "ldmxcsr [{mxcsr}]",
                "fld qword ptr [{x87}]",
                "vmovdqa ymm0, [{from}]", "vmovdqa ymm1, [{from} + 32]",
                "vmovdqa ymm2, [{from} + 64]", "vmovdqa ymm3, [{from} + 96]",
                "vmovdqa ymm4, [{from} + 128]", "vmovdqa ymm5, [{from} + 160]",
                "vmovdqa ymm6, [{from} + 192]", "vmovdqa ymm7, [{from} + 224]",
                "vmovdqa ymm8, [{from} + 256]", "vmovdqa ymm9, [{from} + 288]",
                "vmovdqa ymm10, [{from} + 320]", "vmovdqa ymm11, [{from} + 352]",
                "vmovdqa ymm12, [{from} + 384]", "vmovdqa ymm13, [{from} + 416]",
                "vmovdqa ymm14, [{from} + 448]", "vmovdqa ymm15, [{from} + 480]",
                "mov al, 1",
                "out 1, al",
                "vmovdqa [{to}], ymm0", "vmovdqa [{to} + 32], ymm1",
                "vmovdqa [{to} + 64], ymm2", "vmovdqa [{to} + 96], ymm3",
                "vmovdqa [{to} + 128], ymm4", "vmovdqa [{to} + 160], ymm5",
                "vmovdqa [{to} + 192], ymm6", "vmovdqa [{to} + 224], ymm7",
                "vmovdqa [{to} + 256], ymm8", "vmovdqa [{to} + 288], ymm9",
                "vmovdqa [{to} + 320], ymm10", "vmovdqa [{to} + 352], ymm11",
                "vmovdqa [{to} + 384], ymm12", "vmovdqa [{to} + 416], ymm13",
                "vmovdqa [{to} + 448], ymm14", "vmovdqa [{to} + 480], ymm15",
                "fstp qword ptr [{x87_after}]",
                "stmxcsr [{mxcsr_after}]",
                "ldmxcsr [{usual}]",
                "vzeroupper",
                mxcsr = in(reg) &raw const mxcsr,
                usual = in(reg) &raw const usual,
                x87 = in(reg) &raw const x87,
                from = in(reg) &raw const before,
                to = in(reg) &raw mut after,
                x87_after = in(reg) &raw mut x87_after,
                mxcsr_after = in(reg) &raw mut mxcsr_after,
                out("al") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        before.0 == after.0
            && x87.to_bits() == x87_after.to_bits()
            && mxcsr & !0x3f == mxcsr_after & !0x3f
    }
}
