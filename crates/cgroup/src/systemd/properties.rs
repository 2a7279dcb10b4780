//! Limits as properties of a unit.
//!
//! systemd writes the files of a unit's cgroup whenever it reloads, from the
//! unit's properties: a limit that is only in the file does not last. So each
//! limit that systemd has a property for is given to it as well. Where it has
//! none, the file is its own.

use std::collections::BTreeMap;

use accord_outcome::{Failure, Result};

use crate::resources::Step;

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
    Texts(Vec<String>),
}

/// A property and its value.
pub(crate) type Property = (String, Value);

/// The properties that say what these steps write.
pub(crate) fn of_steps(steps: &[Step]) -> Vec<Property> {
    let settings = steps.iter().flat_map(Step::settings);
    let files: BTreeMap<&str, &str> =
        settings.map(|setting| (&*setting.file, setting.value.as_str())).collect();
    let limits = [
        ("memory.max", "MemoryMax"),
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("memory.limit_in_bytes", "MemoryLimit"),
        ("pids.max", "TasksMax"),
        ("cpu.weight", "CPUWeight"),
        ("cpu.shares", "CPUShares"),
        ("blkio.weight", "BlockIOWeight"),
    ];
    let mut properties = Vec::new();
    for (file, property) in limits {
        if let Some(value) = files.get(file).and_then(|value| limit(value)) {
            properties.push((property.to_owned(), Value::U64(value)));
        }
    }
    for (file, property) in [("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")]
    {
        if let Some(bits) = files.get(file).and_then(|value| bits(value)) {
            properties.push((property.to_owned(), Value::Bytes(bits)));
        }
    }
    properties.extend(bandwidth(&files));
    properties
}

/// A number of a cgroup file; what means "no limit" there is the largest here.
/// `None` for a notation of the kernel's that systemd does not share (`1G`).
fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" | "-1" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Quota and period: of v2 in one file, of v1 in two.
fn bandwidth(files: &BTreeMap<&str, &str>) -> Vec<Property> {
    let mut both = files.get("cpu.max").unwrap_or(&"").split_ascii_whitespace();
    let quota = both.next().or(files.get("cpu.cfs_quota_us").copied()).and_then(limit);
    let period = both.next().or(files.get("cpu.cfs_period_us").copied()).and_then(limit);
    let mut properties = Vec::new();
    if let Some(period) = period {
        properties.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    }
    if let Some(quota) = quota {
        let per_second = match quota {
            u64::MAX => u64::MAX,
            // systemd keeps whole per cents. It may not give less than was
            // asked, or the quota of a cgroup below would not fit.
            quota => {
                let usec =
                    quota.saturating_mul(1_000_000).div_ceil(period.unwrap_or(100_000).max(1));
                usec.next_multiple_of(10_000)
            }
        };
        properties.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second)));
    }
    properties
}

/// `0-2,5` as a bit mask, lowest byte first.
fn bits(ranges: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in ranges.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // A CPU's number has at most 13 bits on any kernel.
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        for number in first..=last {
            let byte = usize::from(number / 8);
            if bits.len() <= byte {
                bits.resize(byte + 1, 0);
            }
            *bits.get_mut(byte)? |= 1 << (number % 8);
        }
    }
    Some(bits)
}

/// A property of an annotation `org.systemd.property.NAME`, whose value is a
/// GVariant text of a simple type: `true`, `'text'`, `5`, `uint64 5`, `['a', 'b']`.
/// `NAMESec` is taken for `NAMEUSec`, as unit files have it.
pub(crate) fn of_annotation(name: &str, text: &str) -> Result<Property> {
    let refuse = |cause| Failure::text("systemd property", name, cause);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(refuse("is not the name of a property"));
    }
    let value =
        value(text.trim()).ok_or_else(|| refuse("its value is not of a type known here"))?;
    match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
        None => Ok((name.to_owned(), value)),
        Some(stem) => {
            let seconds = match value {
                Value::I32(number) => u64::try_from(number).ok(),
                Value::I64(number) => u64::try_from(number).ok(),
                Value::U32(number) => Some(number.into()),
                Value::U64(number) => Some(number),
                _ => None,
            };
            let usec = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
            let usec = usec.ok_or_else(|| refuse("its value is not a number of seconds"))?;
            Ok((format!("{stem}USec"), Value::U64(usec)))
        }
    }
}

fn value(text: &str) -> Option<Value> {
    if let Some(list) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let texts = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        return texts.map(quoted).collect::<Option<Vec<_>>>().map(Value::Texts);
    }
    match text.split_once(' ').map(|(kind, number)| (kind, number.trim())) {
        Some(("int32", number)) => return number.parse().ok().map(Value::I32),
        Some(("uint32", number)) => return number.parse().ok().map(Value::U32),
        Some(("int64", number)) => return number.parse().ok().map(Value::I64),
        Some(("uint64", number)) => return number.parse().ok().map(Value::U64),
        _ => {}
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        text => match text.parse() {
            Ok(number) => Some(Value::I32(number)),
            Err(_) => quoted(text).map(Value::Text),
        },
    }
}

/// A text in quotes, without escapes.
fn quoted(text: &str) -> Option<String> {
    let mark = text.chars().next().filter(|mark| matches!(mark, '\'' | '"'))?;
    let inner = text.strip_prefix(mark)?.strip_suffix(mark)?;
    (!inner.contains([mark, '\\'])).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::resources::{Version, settings};

    fn of(version: Version, resources: Json) -> Vec<(String, Value)> {
        let resources = serde_json::from_value(resources).unwrap();
        of_steps(&settings(&resources, |_| version).unwrap())
    }

    fn u64s(version: Version, resources: Json) -> Vec<(String, u64)> {
        let number = |(name, value)| match value {
            Value::U64(number) => (name, number),
            value => panic!("{value:?}"),
        };
        of(version, resources).into_iter().map(number).collect()
    }

    fn named(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        pairs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn limits_v2() {
        let resources = json!({
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
            "pids": {"limit": -1},
            "cpu": {"shares": 1024, "quota": 15_500, "period": 50_000},
            "unified": {"memory.high": "900", "memory.min": "1K", "io.weight": "5"}
        });
        let expected = [
            ("MemoryMax", 1000),
            ("MemoryHigh", 900),
            ("MemoryLow", 500),
            ("MemorySwapMax", 2000),
            ("TasksMax", u64::MAX),
            ("CPUWeight", 100),
            ("CPUQuotaPeriodUSec", 50_000),
            ("CPUQuotaPerSecUSec", 310_000),
        ];
        assert_eq!(u64s(Version::V2, resources), named(&expected));
    }

    #[test]
    fn limits_v1() {
        let resources = json!({
            "memory": {"limit": 1000, "swap": 3000},
            "pids": {"limit": 5},
            "cpu": {"shares": 512, "quota": 33_333, "period": 100_000},
            "blockIO": {"weight": 10}
        });
        let expected = [
            ("MemoryLimit", 1000),
            ("TasksMax", 5),
            ("CPUShares", 512),
            ("BlockIOWeight", 10),
            ("CPUQuotaPeriodUSec", 100_000),
            ("CPUQuotaPerSecUSec", 340_000),
        ];
        assert_eq!(u64s(Version::V1, resources), named(&expected));
    }

    #[test]
    fn quota_without_period_and_without_end() {
        let quota = |quota| u64s(Version::V2, json!({"cpu": {"quota": quota}}));
        assert_eq!(quota(50_000), named(&[("CPUQuotaPerSecUSec", 500_000)]));
        assert_eq!(quota(-1), named(&[("CPUQuotaPerSecUSec", u64::MAX)]));
        let period = json!({"cpu": {"period": 20_000}});
        let unlimited = [("CPUQuotaPeriodUSec", 20_000), ("CPUQuotaPerSecUSec", u64::MAX)];
        assert_eq!(u64s(Version::V2, period), named(&unlimited));
    }

    #[test]
    fn cpus_are_bits() {
        let properties = of(Version::V2, json!({"cpu": {"cpus": "0-2,9", "mems": "0"}}));
        let expected = [
            ("AllowedCPUs".to_owned(), Value::Bytes(vec![0b111, 0b10])),
            ("AllowedMemoryNodes".to_owned(), Value::Bytes(vec![1])),
        ];
        assert_eq!(properties, expected);
        assert_eq!(bits("x"), None);
        assert_eq!(bits("3-1"), Some(vec![]));
    }

    #[test]
    fn annotations() {
        let cases = [
            ("KillSignal", "36", "KillSignal", Value::I32(36)),
            ("TimeoutStopUSec", "uint64 10000000", "TimeoutStopUSec", Value::U64(10_000_000)),
            ("TimeoutStopSec", "uint64 10", "TimeoutStopUSec", Value::U64(10_000_000)),
            ("TimeoutStopSec", " 10 ", "TimeoutStopUSec", Value::U64(10_000_000)),
            ("CollectMode", "'inactive'", "CollectMode", Value::Text("inactive".into())),
            ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
            ("OOMScoreAdjust", "int32 -5", "OOMScoreAdjust", Value::I32(-5)),
            (
                "After",
                "['a.service', \"b\"]",
                "After",
                Value::Texts(vec!["a.service".into(), "b".into()]),
            ),
        ];
        for (name, text, property, value) in cases {
            assert_eq!(of_annotation(name, text).unwrap(), (property.to_owned(), value));
        }
        for (name, text) in
            [("a.b", "true"), ("", "true"), ("A", "word"), ("A", "'it\\'s'"), ("ASec", "'x'")]
        {
            assert!(of_annotation(name, text).is_err(), "{name}={text}");
        }
    }
}
