//! QEMU's command line: a machine with nothing but what the guest uses.

use accord_channel::names::{AGENT, INIT_PROGRAM, PORT, TAG};

use crate::{KERNEL, Machine};

/// The descriptors that the emulator gets, by number.
pub(crate) const CHANNEL: i32 = 3;
/// The connection to the file server.
pub(crate) const FILES: i32 = 4;
/// The first tap device; the others follow.
pub(crate) const TAPS: i32 = 5;

/// The initramfs in the emulator's root.
pub(crate) const INITRAMFS: &str = "/initramfs";

/// The arguments, the program's name first.
pub(crate) fn arguments(program: &str, machine: &Machine, taps: u32) -> Vec<String> {
    let on = |yes: bool| if yes { "on" } else { "off" };
    let acpi = on(machine.acpi);
    let memory = machine.memory_mib;
    let pairs = [
        // No serial port, no option ROMs: what is not there need not be probed.
        (
            "-machine",
            format!("microvm,acpi={acpi},isa-serial=off,x-option-roms=off,memory-backend=ram"),
        ),
        ("-accel", "tcg,thread=multi,tb-size=256".into()),
        ("-cpu", "max".into()),
        ("-smp", machine.vcpus.to_string()),
        ("-m", format!("{memory}M")),
        // Shared with the file server.
        ("-object", format!("memory-backend-memfd,id=ram,size={memory}M,share=on")),
        ("-kernel", KERNEL.into()),
        ("-append", command_line(machine)),
        ("-chardev", "stdio,id=log,signal=off".into()),
        ("-chardev", format!("socket,id=channel,fd={CHANNEL}")),
        ("-chardev", format!("socket,id=files,fd={FILES}")),
        ("-global", "virtio-mmio.force-legacy=false".into()),
        ("-device", "virtio-serial-device,max_ports=2".into()),
        ("-device", "virtconsole,chardev=log,nr=0".into()),
        ("-device", format!("virtserialport,chardev=channel,nr=1,name={}", PORT)),
        ("-device", format!("vhost-user-fs-device,chardev=files,tag={}", TAG)),
        ("-device", "virtio-rng-device".into()),
        // No new programs, no other users, no old calls.
        (
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
        ),
    ];
    let initramfs = machine.initramfs.then(|| ["-initrd".to_owned(), INITRAMFS.into()]);
    let flags = ["-nodefaults", "-no-user-config", "-no-reboot", "-nographic"];
    let network = (TAPS..).zip(0..taps).flat_map(|(fd, number)| {
        [
            "-netdev".to_owned(),
            format!("tap,id=net{number},fd={fd}"),
            "-device".to_owned(),
            format!("virtio-net-device,netdev=net{number}"),
        ]
    });
    std::iter::once(program.to_owned())
        .chain(flags.map(str::to_owned))
        .chain(initramfs.into_iter().flatten())
        .chain(network)
        .chain(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]))
        .collect()
}

/// The kernel's. A restart of the guest is the end of the machine (`-no-reboot`),
/// and a panic restarts at once: so nothing that goes wrong in it hangs. On a busy host
/// the timer of an emulated machine may tick late, which the kernel would take for none
/// at all, and panic (`no_timer_check`).
pub(crate) const COMMAND_LINE: &str =
    "console=hvc0 panic=-1 reboot=t quiet no_timer_check random.trust_cpu=on";

/// Where the guest's kernel finds its root, if that is no initramfs; a word that it
/// does not know is its first program's argument.
pub(crate) fn root(machine: &Machine) -> String {
    match machine.initramfs {
        true => String::new(),
        false => format!(" root={TAG} rootfstype=virtiofs rw init={INIT_PROGRAM} {AGENT}"),
    }
}

fn command_line(machine: &Machine) -> String {
    let mut line = String::from(COMMAND_LINE);
    line.push_str(&root(machine));
    if machine.acpi
        && let Some(khz) = machine.tsc_khz
    {
        line.push_str(&format!(" tsc_early_khz={khz} tsc=reliable"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;
    use crate::machine::MOST_TAPS;

    #[test]
    fn there_is_a_place_for_every_device() {
        // Without ACPI, as many as `hw/i386/microvm.c` has.
        const PLACES: usize = 8;
        let machine = Machine {
            engine: Engine::Emulator("qemu".into()),
            memory_mib: 256,
            vcpus: 1,
            initramfs: false,
            acpi: false,
            tsc_khz: None,
            patience: 1,
        };
        let taps = u32::try_from(MOST_TAPS).unwrap();
        let arguments = arguments("qemu", &machine, taps);
        // `virtio-net-device,netdev=net0`; a port of the console is no device of the bus.
        let on_bus = |word: &&String| {
            word.split(',').next().is_some_and(|name| name.ends_with("-device"))
                && !word.starts_with('-')
        };
        assert_eq!(arguments.iter().filter(on_bus).count(), PLACES);
    }
}
