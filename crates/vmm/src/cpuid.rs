//! What a guest's processor says that it is: the host's, as far as KVM can give it,
//! each a package of one core with its own number.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaf 1: the processor is a virtual one, and its timer takes a deadline.
const HYPERVISOR: u32 = 1 << 31;
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1: there is more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001: the package is described by leaf 0x8000_001e.
const TOPOEXT: u32 = 1 << 22;

/// The kinds of level in leaf 0xb.
const THREADS: u32 = 1 << 8;
const CORES: u32 = 2 << 8;

/// Changes what KVM supports into what the processor number `id` of `count` shows.
pub(crate) fn describe(cpuid: &mut CpuId, id: u8, count: u8, deadline: bool) {
    let (id, count) = (u32::from(id), u32::from(count));
    // How many bits a number in the package has.
    let width = count.next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            (1, _) => {
                entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
                entry.ecx |= HYPERVISOR | if deadline { TSC_DEADLINE } else { 0 };
                entry.edx = if count > 1 { entry.edx | HTT } else { entry.edx & !HTT };
            }
            // Caches that are not shared; on Intel, how many cores there are.
            (4, _) if entry.eax & 0x1f != 0 => {
                entry.eax = entry.eax & 0x3fff | count.saturating_sub(1) << 26;
            }
            (0xb | 0x1f, index) => level(entry, index, id, count, width),
            (0x8000_0001, _) => entry.ecx &= !TOPOEXT,
            (0x8000_0008, _) => entry.ecx = width << 12 | count.saturating_sub(1),
            _ => {}
        }
    }
}

fn level(entry: &mut kvm_cpuid_entry2, index: u32, id: u32, count: u32, width: u32) {
    let (shift, here, kind) = match index {
        0 => (0, 1, THREADS),
        1 => (width, count, CORES),
        _ => (0, 0, 0),
    };
    entry.eax = shift;
    entry.ebx = here;
    entry.ecx = index & 0xff | kind;
    entry.edx = id;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ..kvm_cpuid_entry2::default() }
    }

    #[test]
    fn each_processor_has_its_number() {
        let all = [entry(1, 0), entry(0xb, 0), entry(0xb, 1), entry(0x8000_0008, 0)];
        let mut cpuid = CpuId::from_entries(&all).unwrap();
        describe(&mut cpuid, 2, 3, true);
        let [basic, threads, cores, amd] = cpuid.as_slice() else { panic!() };
        assert_eq!((basic.ebx >> 24, basic.ebx >> 16 & 0xff), (2, 3));
        assert_eq!(basic.ecx, HYPERVISOR | TSC_DEADLINE);
        assert_eq!(basic.edx, HTT);
        assert_eq!((threads.eax, threads.ebx, threads.edx), (0, 1, 2));
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 3, 1 | CORES));
        assert_eq!(amd.ecx, 2 << 12 | 2);
    }

    #[test]
    fn one_processor_shares_nothing() {
        let mut cpuid = CpuId::from_entries(&[entry(1, 0), entry(0xb, 1)]).unwrap();
        describe(&mut cpuid, 0, 1, false);
        let [basic, cores] = cpuid.as_slice() else { panic!() };
        assert_eq!((basic.ebx, basic.ecx, basic.edx), (1 << 16, HYPERVISOR, 0));
        assert_eq!((cores.eax, cores.ebx), (0, 1));
    }
}
