//! Talking to systemd: the only place that knows of D-Bus.
//!
//! Each function makes a connection and drives it on the calling thread until
//! its answer is there; nothing of it is left when it returns, above all no
//! thread, which would forbid the runtime to clone a container's process.

use std::path::Path;
use std::time::{Duration, Instant};

use accord_outcome::{Failure, Quoted, Result};
use zbus::connection::{Builder, Connection};
use zbus::{DynamicType, Error, Message, OwnedObjectPath, Variant};

use super::properties::{Property, Value};
use super::unit::Unit;
use crate::file;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_JOB: &str = "org.freedesktop.systemd1.NoSuchJob";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// How long systemd may take for an answer, and for a job.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer<T> = std::result::Result<T, Error>;

/// Starts a transient unit and waits until that is over.
pub(super) fn start(unit: &Unit, properties: &[Property]) -> Result<()> {
    let properties = variants(properties);
    let auxiliary: [(&str, Vec<(&str, Variant<'_>)>); 0] = [];
    let arguments = (&*unit.scope, "replace", properties, auxiliary.as_slice());
    run("start unit", unit, async |connection| {
        let mut job = call(connection, "StartTransientUnit", &arguments).await;
        if is_named(&job, UNIT_EXISTS) {
            // Of an earlier container, failed: it is kept until somebody has seen it.
            call(connection, "ResetFailedUnit", &unit.scope).await?;
            job = call(connection, "StartTransientUnit", &arguments).await;
        }
        finish(connection, &job?).await
    })
}

/// Stops a unit and waits until that is over. One that is not there is stopped.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    run("stop unit", unit, async |connection| {
        let job = call(connection, "StopUnit", &(&*unit.scope, "replace")).await;
        if is_named(&job, NO_SUCH_UNIT) {
            return Ok(());
        }
        finish(connection, &job?).await?;
        match call(connection, "ResetFailedUnit", &unit.scope).await {
            reset if is_named(&reset, NO_SUCH_UNIT) => Ok(()),
            reset => reset.map(drop),
        }
    })
}

/// Changes properties of a unit until it ends.
pub(super) fn set(unit: &Unit, properties: &[Property]) -> Result<()> {
    let arguments = (&*unit.scope, true, variants(properties));
    run("set properties of unit", unit, async |connection| {
        call(connection, "SetUnitProperties", &arguments).await.map(drop)
    })
}

/// Moves a process into a unit's cgroup, or into one below that.
pub(super) fn attach(unit: &Unit, below: &str, pid: u32) -> Result<()> {
    let arguments = (&*unit.scope, below, vec![pid]);
    run("attach process to unit", unit, async |connection| {
        call(connection, "AttachProcessesToUnit", &arguments).await.map(drop)
    })
}

/// The cgroup of the user's manager, which its units are below.
pub(super) fn control_group(unit: &Unit) -> Result<String> {
    run("find manager of unit", unit, async |connection| {
        let properties = Some("org.freedesktop.DBus.Properties");
        let property = (MANAGER, "ControlGroup");
        let answer = connection.call_method(Some(NAME), PATH, properties, "Get", &property).await?;
        match answer.body().deserialize()? {
            Variant::Str(path) => Ok(path.as_str().to_owned()),
            _ => Err(Error::IncorrectType),
        }
    })
}

fn run<T>(
    step: &'static str,
    unit: &Unit,
    ask: impl AsyncFnOnce(&Connection) -> Answer<T>,
) -> Result<T> {
    let bus = if unit.user { "bus of user" } else { "bus of system" };
    zbus::block_on(async {
        let connection = connect(unit.user)?.build().await;
        let connection = connection.map_err(|error| failure("connect to", bus, &error))?;
        let answer = ask(&connection).await;
        answer.map_err(|error| failure(step, &unit.scope, &error))
    })
}

fn connect(user: bool) -> Result<Builder<'static>> {
    if !user {
        return Ok(Builder::system().method_timeout(PATIENCE));
    }
    // In a user namespace of ours we are root; the bus knows who made it.
    let map = file::read(Path::new("/proc/self/uid_map"))?;
    let uid = outer_uid(&map, rustix::process::geteuid().as_raw());
    Ok(Builder::session().user_id(uid).method_timeout(PATIENCE))
}

/// A user's id outside of our user namespace, by its `uid_map`.
fn outer_uid(map: &str, uid: u32) -> u32 {
    let outer = map.lines().find_map(|line| {
        let numbers = line
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<Vec<u32>, _>>();
        let [inside, outside, length] = numbers.ok()?.try_into().ok()?;
        let offset = uid.checked_sub(inside).filter(|offset| *offset < length)?;
        outside.checked_add(offset)
    });
    outer.unwrap_or(uid)
}

async fn call<B>(connection: &Connection, method: &'static str, body: &B) -> Answer<Message>
where
    B: serde::Serialize + DynamicType,
{
    connection.call_method(Some(NAME), PATH, Some(MANAGER), method, body).await
}

/// Waits until a job is over, by asking for it: to be told, we would have to
/// subscribe to all of systemd's signals, and a stream of them outlives its use.
/// How it went is seen where it counts, in the cgroup.
async fn finish(connection: &Connection, job: &Message) -> Answer<()> {
    let job: OwnedObjectPath = job.body().deserialize()?;
    let id: Option<u32> = job.as_str().rsplit('/').next().and_then(|id| id.parse().ok());
    let id = id.ok_or(Error::InvalidReply)?;
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        let answer = call(connection, "GetJob", &id).await;
        if is_named(&answer, NO_SUCH_JOB) {
            return Ok(());
        }
        answer?;
        if Instant::now() > deadline {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        }
        // Nothing else is to be done on this thread meanwhile.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn variants(properties: &[Property]) -> Vec<(&str, Variant<'_>)> {
    let variant = |value: &Value| match value.clone() {
        Value::Bool(value) => Variant::from(value),
        Value::I32(number) => Variant::from(number),
        Value::I64(number) => Variant::from(number),
        Value::U32(number) => Variant::from(number),
        Value::U64(number) => Variant::from(number),
        Value::Text(text) => Variant::from(text),
        Value::Bytes(bytes) => Variant::from(bytes),
        Value::Numbers(numbers) => Variant::from(numbers),
        Value::Texts(texts) => Variant::from(texts),
    };
    properties.iter().map(|(name, value)| (name.as_str(), variant(value))).collect()
}

fn is_named<T>(answer: &Answer<T>, name: &str) -> bool {
    matches!(answer, Err(Error::MethodError(error, _, _)) if *error == name)
}

/// The errno where there is one; else the error's name, and its text in quotes:
/// no words of others between ours.
fn failure(step: &'static str, object: &str, error: &Error) -> Failure {
    match error {
        Error::InputOutput(error) | Error::Connection(error, _) => Failure::io(step, object, error),
        Error::MethodError(name, Some(text), _) => {
            Failure::text(step, object, format!("{name}: {}", Quoted(text)))
        }
        Error::Failure(text) => Failure::text(step, object, text.clone()),
        error => Failure::text(step, object, Quoted(error.to_string()).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_knows_us_by_our_outer_id() {
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outer_uid(rootless, 0), 1000);
        assert_eq!(outer_uid(rootless, 5), 100_004);
        assert_eq!(outer_uid("0 0 4294967295\n", 1000), 1000);
        assert_eq!(outer_uid("", 7), 7);
    }

    #[test]
    fn failures_name_the_unit() {
        let refused = std::io::Error::from_raw_os_error(111);
        let failure = failure("start unit", "x.scope", &Error::from(refused));
        assert_eq!(failure.to_string(), r#"start unit "x.scope": ECONNREFUSED"#);
    }
}
