//! A guest's writes to registers and memory, and its kicks: console, random numbers, network.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut devices = accord_vmm::fuzz::Devices::new().expect("make the devices");
    // A failure is the end of the machine, and the right one.
    let _end = devices.live(bytes);
});
