//! Id maps: those that the kernel takes.

use proptest::prelude::*;

use super::*;

#[test]
fn id_maps_go_with_a_user_namespace() {
    let map = |lines: &[(u32, u32, u32)]| {
        lines
            .iter()
            .map(|(inside, outside, size)| {
                json!({ "containerID": inside, "hostID": outside, "size": size })
            })
            .collect::<Value>()
    };
    let uids = |lines: &[(u32, u32, u32)]| {
        [&user_namespace()[..], &[("/linux/uidMappings", map(lines))]].concat()
    };
    let user = |member: &str, id: Value| {
        let at = if member == "uid" { "/process/user/uid" } else { "/process/user/additionalGids" };
        [&user_namespace()[..], &[(at, id)]].concat()
    };
    check(&[
        (&user_namespace(), ""),
        (
            &[("/linux/uidMappings", root_map())],
            r#"config.json "/linux/uidMappings": is set without a user namespace"#,
        ),
        (
            &[namespace("user"), ("/linux/uidMappings", root_map())],
            r#"config.json "/linux/gidMappings": must be set for a new user namespace"#,
        ),
        (
            &[namespace("user")],
            r#"config.json "/linux/uidMappings": must be set for a new user namespace"#,
        ),
        (&[joined("user")], ""),
        (&[joined("user"), ("/process/user/uid", json!(5000))], ""),
        (&uids(&[(0, 1000, 1), (1, 100_000, 65536)]), ""),
        (&uids(&[(0, 0, u32::MAX)]), ""),
        (&uids(&[(0, 0, 1), (5, 6, 0)]), r#"config.json "/linux/uidMappings/1": is empty"#),
        (
            &uids(&[(0, 1, u32::MAX)]),
            r#"config.json "/linux/uidMappings/0": goes beyond the last id"#,
        ),
        (
            &uids(&[(0, 1000, 10), (9, 2000, 10)]),
            r#"config.json "/linux/uidMappings/1": overlaps an earlier entry"#,
        ),
        (
            &uids(&[(20, 1005, 10), (0, 1000, 6)]),
            r#"config.json "/linux/uidMappings/1": overlaps an earlier entry"#,
        ),
        (&uids(&[(20, 1006, 10), (0, 1000, 6)]), ""),
        (
            &uids(&(0..341).map(|id| (id, id, 1)).collect::<Vec<_>>()),
            r#"config.json "/linux/uidMappings": has more than 340 entries"#,
        ),
        (&user("uid", json!(999)), ""),
        (
            &user("uid", json!(1000)),
            r#"config.json "/process/user/uid": 1000 is not mapped into the user namespace"#,
        ),
        (
            &user("gids", json!([5, 5000])),
            r#"config.json "/process/user/additionalGids/1": 5000 is not mapped into the user namespace"#,
        ),
    ]);
}

/// A map as the kernel judges it: no range is empty, reaches the last number, or meets another.
fn kernel_takes(map: &[(u32, u32, u32)]) -> bool {
    let ranges = |first: fn(&(u32, u32, u32)) -> u32| {
        let mut ranges: Vec<(u64, u64)> = map
            .iter()
            .map(|line| (first(line).into(), u64::from(first(line)) + u64::from(line.2)))
            .collect();
        ranges.sort_unstable();
        ranges.iter().all(|(start, end)| start < end && *end <= u64::from(u32::MAX))
            && ranges.windows(2).all(|two| two[0].1 <= two[1].0)
    };
    map.len() <= 340 && ranges(|line| line.0) && ranges(|line| line.1)
}

proptest! {
    /// Small numbers meet often, large ones reach the end.
    #[test]
    fn an_id_map_is_taken_if_the_kernel_takes_it(
        map in prop::collection::vec(
            prop_oneof![
                (0u32..40, 0u32..40, 0u32..12),
                (any::<u32>(), any::<u32>(), any::<u32>()),
            ],
            0..6,
        ),
    ) {
        // What the process is must be mapped, too.
        let mut map: Vec<_> = map.iter().map(|(a, b, c)| (a.saturating_add(10), *b, *c)).collect();
        map.push((0, 4_000_000_000, 10));
        let lines: Vec<Value> = map
            .iter()
            .map(|(inside, outside, size)| {
                json!({ "containerID": inside, "hostID": outside, "size": size })
            })
            .collect();
        let mut config = default();
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = json!(lines);
        config["linux"]["gidMappings"] = root_map();
        let taken = Bundle::from_json("/b".into(), config.to_string().as_bytes());
        prop_assert_eq!(taken.is_ok(), kernel_takes(&map), "{:?}", taken.err());
    }
}
