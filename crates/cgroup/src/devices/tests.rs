use oci_spec::runtime::LinuxDeviceCgroup;

use super::*;

/// Rules as an engine writes them: `allow c 1:3 rw`, `deny a *:* rwm`.
fn rules(text: &str) -> Vec<Rule> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(rule).collect()
}

fn rule(line: &str) -> Rule {
    let [verb, kind, numbers, access] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (major, minor) = numbers.split_once(':').unwrap();
    let json = serde_json::json!({
        "allow": verb == "allow",
        "type": kind,
        "major": major.parse::<i64>().unwrap_or(-1),
        "minor": minor.parse::<i64>().unwrap_or(-1),
        "access": access,
    });
    Rule::new(&serde_json::from_value::<LinuxDeviceCgroup>(json).unwrap()).unwrap()
}

/// A request for one device.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: Kind,
    major: u32,
    minor: u32,
    access: u8,
}

/// The definition: each permission by the last rule that speaks of it.
fn is_allowed(rules: &[Rule], request: Request) -> bool {
    let speaks = |rule: &&Rule| {
        rule.devices.kind.is_none_or(|kind| kind == request.kind)
            && rule.devices.major.is_none_or(|major| major == request.major)
            && rule.devices.minor.is_none_or(|minor| minor == request.minor)
    };
    [1, 2, 4].iter().filter(|bit| request.access & **bit != 0).all(|bit| {
        let last = rules.iter().rev().filter(speaks).find(|rule| rule.access.bits() & bit != 0);
        last.is_some_and(|rule| rule.allow)
    })
}

/// What the kernel does with the program: only the instructions that we use.
fn run(program: &[bpf::Insn], request: Request) -> bool {
    let kind = if request.kind == Kind::Block { 1 } else { 2 };
    let context = [u32::from(request.access) << 16 | kind, request.major, request.minor];
    let mut registers = [0u32; 6];
    let mut at = 0usize;
    loop {
        let insn = program[at];
        let to = usize::from(insn.registers & 15);
        let from = usize::from(insn.registers >> 4);
        let value = insn.immediate.cast_unsigned();
        let mut skip = 0;
        match insn.code {
            0x61 => registers[to] = context[usize::try_from(insn.offset).unwrap() / 4],
            0xbc => registers[to] = registers[from],
            0xb7 => registers[to] = value,
            0x54 => registers[to] &= value,
            0x74 => registers[to] >>= value,
            0x15 if registers[to] == value => skip = insn.offset,
            0x55 if registers[to] != value => skip = insn.offset,
            0x15 | 0x55 => {}
            0x95 => return registers[0] == 1,
            code => panic!("opcode {code:#x}"),
        }
        at += 1 + usize::try_from(skip).unwrap();
    }
}

/// What the kernel does with a v1 device cgroup.
fn is_allowed_v1(exceptions: &Exceptions, request: Request) -> bool {
    let matches = |line: &str| {
        let mut parts = line.split([' ', ':']);
        let number = |part: &str, number: u32| part == "*" || part == number.to_string();
        let kind = if request.kind == Kind::Block { "b" } else { "c" };
        let matches = parts.next() == Some(kind)
            && number(parts.next().unwrap(), request.major)
            && number(parts.next().unwrap(), request.minor);
        matches.then(|| Access::parse(parts.next().unwrap()).unwrap().bits())
    };
    let (_, lines) = exceptions.exception_lines();
    let mut held = lines.iter().filter_map(|line| matches(line));
    match exceptions.default {
        true => !held.any(|access| access & request.access != 0),
        false => held.any(|access| access & request.access == request.access),
    }
}

fn listing(rules: &[Rule]) -> String {
    let show = |(at, insn): (usize, &bpf::Insn)| {
        let (to, from) = (insn.registers & 15, insn.registers >> 4);
        let (offset, value) = (insn.offset, insn.immediate);
        let target = i64::try_from(at).unwrap() + 1 + i64::from(offset);
        match insn.code {
            0x61 => format!("{at}: r{to} = *(u32 *)(r{from} + {offset})"),
            0xbc => format!("{at}: w{to} = w{from}"),
            0xb7 => format!("{at}: r{to} = {value}"),
            0x54 => format!("{at}: w{to} &= {value:#x}"),
            0x74 => format!("{at}: w{to} >>= {value}"),
            0x15 => format!("{at}: if r{to} == {value} goto {target}"),
            0x55 => format!("{at}: if r{to} != {value} goto {target}"),
            0x95 => format!("{at}: exit"),
            code => panic!("opcode {code:#x}"),
        }
    };
    program(rules).iter().enumerate().map(show).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_program_of_no_rules_denies() {
    let expected = "\
0: r2 = *(u32 *)(r1 + 0)
1: w3 = w2
2: w2 &= 0xffff
3: w3 >>= 16
4: r4 = *(u32 *)(r1 + 4)
5: r5 = *(u32 *)(r1 + 8)
6: r0 = 0
7: exit";
    assert_eq!(listing(&[]), expected);
}

#[test]
fn the_program_of_some_rules() {
    let rules = rules(
        "deny a *:* rwm
         allow c *:* m
         allow c 1:3 rwm
         deny b 8:* w",
    );
    let expected = "\
0: r2 = *(u32 *)(r1 + 0)
1: w3 = w2
2: w2 &= 0xffff
3: w3 >>= 16
4: r4 = *(u32 *)(r1 + 4)
5: r5 = *(u32 *)(r1 + 8)
6: if r2 != 1 goto 13
7: if r4 != 8 goto 13
8: w1 = w3
9: w1 &= 0x4
10: if r1 == 0 goto 13
11: r0 = 0
12: exit
13: if r2 != 2 goto 18
14: if r4 != 1 goto 18
15: if r5 != 3 goto 18
16: r0 = 1
17: exit
18: if r2 != 2 goto 23
19: w3 &= 0xfffffffe
20: if r3 != 0 goto 23
21: r0 = 1
22: exit
23: r0 = 0
24: exit";
    assert_eq!(listing(&rules), expected);
}

#[test]
fn lines_for_v1() {
    let lines = |text: &str| {
        let exceptions = Exceptions::new(&rules(text)).unwrap();
        let (default_file, default) = exceptions.default_line();
        let (file, lines) = exceptions.exception_lines();
        let lines = lines.iter().map(|line| format!("{file} {line}"));
        [format!("{default_file} {default}")].into_iter().chain(lines).collect::<Vec<_>>()
    };
    assert_eq!(lines(""), ["devices.deny a"]);
    assert_eq!(lines("allow a *:* rwm"), ["devices.allow a"]);
    assert_eq!(
        lines("deny a *:* rwm\nallow c 1:3 r\nallow c 1:3 w\nallow b *:* m\ndeny c 1:3 w"),
        ["devices.deny a", "devices.allow c 1:3 r", "devices.allow b *:* m"]
    );
    assert_eq!(
        lines("allow a *:* rwm\ndeny a 5:* w"),
        ["devices.allow a", "devices.deny b 5:* w", "devices.deny c 5:* w"]
    );
    // What a wildcard allows is part of what one device is allowed.
    assert_eq!(
        lines("allow c *:* m\nallow c 1:3 rw"),
        ["devices.deny a", "devices.allow c *:* m", "devices.allow c 1:3 rwm"]
    );
}

#[test]
fn a_hole_in_a_wildcard_is_refused_on_v1() {
    let refuse = |text: &str| Exceptions::new(&rules(text)).unwrap_err().to_string();
    assert_eq!(
        refuse("allow c *:* rwm\ndeny c 1:3 w"),
        r#"device rule "c\x201:3\x20w": forbids a part of "c\x20*:*\x20rwm", which cgroup v1 cannot"#
    );
    assert_eq!(
        refuse("allow a *:* rwm\ndeny c *:3 r\nallow c 1:* r"),
        r#"device rule "c\x201:*\x20r": allows a part of "c\x20*:3\x20r", which cgroup v1 cannot"#
    );
    // Nothing of the wildcard is concerned here.
    assert!(Exceptions::new(&rules("allow c *:* m\ndeny c 1:3 w")).is_ok());
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let read = |json| Rule::new(&serde_json::from_value(json).unwrap());
    let refuse = |json| read(json).unwrap_err().to_string();
    assert!(refuse(serde_json::json!({"allow": true, "access": "rx"})).contains("r, w, m"));
    assert!(refuse(serde_json::json!({"allow": true, "type": "p"})).contains("fifo"));
    assert!(refuse(serde_json::json!({"allow": true, "major": 1u64 << 31})).contains("too large"));
    // Docker's first rule has no type.
    let all = read(serde_json::json!({"allow": false, "access": "rwm"})).unwrap();
    assert_eq!(all, Rule { allow: false, devices: Devices::ALL, access: Access::ALL });
}

#[test]
fn program_and_exceptions_decide_as_the_rules() {
    // All lists of three rules out of these, against all requests of a small world.
    let mut all = rules(
        "deny a *:* rwm
         allow a *:* rwm
         allow a 1:* r
         allow c *:* m
         allow c 1:3 rw
         deny c 1:3 w
         deny c 1:* rm
         allow b 1:3 rwm
         deny b *:3 w",
    );
    all.extend(default_rules().drain(..3));
    let mut requests = Vec::new();
    for kind in [Kind::Block, Kind::Character] {
        for (major, minor) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
            requests.extend((1..8).map(|access| Request { kind, major, minor, access }));
        }
    }
    let mut on_v1 = 0;
    for first in &all {
        for second in &all {
            for third in &all {
                let rules = [*first, *second, *third];
                let program = program(&rules);
                let exceptions = Exceptions::new(&rules);
                on_v1 += usize::from(exceptions.is_ok());
                for &request in &requests {
                    let expected = is_allowed(&rules, request);
                    assert_eq!(run(&program, request), expected, "{rules:?} {request:?}");
                    if let Ok(exceptions) = &exceptions {
                        let allowed = is_allowed_v1(exceptions, request);
                        assert_eq!(allowed, expected, "{rules:?} {request:?}");
                    }
                }
            }
        }
    }
    assert!(on_v1 > all.len().pow(3) / 2, "{on_v1}");
}

#[test]
fn the_kernel_takes_the_programs() {
    let default = default_rules();
    let many: Vec<Rule> = (0..200).flat_map(|n| rules(&format!("allow c {n}:1 r"))).collect();
    for rules in [vec![], default, rules("allow a *:* rwm"), rules("deny b 8:* w"), many] {
        match bpf::prog_load(b"accord_test\0\0\0\0\0", &program(&rules)) {
            Ok(_) => {}
            Err(errno @ (Errno::PERM | Errno::NOSYS | Errno::ACCESS)) if rules.is_empty() => {
                eprintln!("SKIPPED the_kernel_takes_the_programs: bpf: {errno}");
                return;
            }
            Err(errno) => panic!("{errno}: {}", listing(&rules)),
        }
    }
}
