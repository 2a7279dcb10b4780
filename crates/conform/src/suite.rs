//! The whole run: every case in every form against every runtime.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use accord_outcome::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::case::{Case, Form, Tag};
use crate::judge::{judge, judge_engine};
use crate::observe::{Ended, Observed};
use crate::result::{Cell, Verdict};
use crate::runtime::{Mode, Runtime};
use crate::worker::{Answer, Hello, Order};
use crate::workplace::Workplace;
use crate::{apart, bundle, engine};

/// After so many cells of which each hangs, no other is waited for.
const HOPELESS: u32 = 10;

/// What to run, and how.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The cases.
    pub cases: &'a [Case],
    /// The runtimes.
    pub runtimes: &'a [Runtime],
    /// Only this form, if given.
    pub forms: &'a [Form],
    /// Each case in its first form only.
    pub sample: bool,
    /// Cases tagged `stress`, too.
    pub stress: bool,
    /// How often each cell is run.
    pub repeat: u32,
    /// Workers.
    pub jobs: usize,
    /// What deadlines are multiplied by.
    pub patience: u32,
}

/// One thing to do.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    index: usize,
    case: &'a Case,
    form: Form,
}

/// Runs everything; `tell` hears of each cell as it is done. Who is told to end by a
/// signal meanwhile ends the cases at work, cleans up, and fails.
pub fn run(plan: &Plan<'_>, mut tell: impl FnMut(&Cell)) -> Result<Vec<Cell>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::io("handle signal", "", &error))?;
    }
    let work = Work::make()?;
    let mut cells = Vec::new();
    for runtime in plan.runtimes {
        let jobs = jobs(plan);
        let mut done: Vec<Option<Cell>> = Vec::new();
        done.resize_with(jobs.len(), || None);
        let mut queue = Vec::new();
        for job in jobs {
            let refused =
                runtime.engine.and_then(|engine| engine::refusal(engine, job.case, job.form));
            let skipped = || skip(job.case, runtime, work.rootless.is_some(), plan.stress);
            match refused.or_else(skipped) {
                Some(reason) => {
                    let cell = Cell::skipped(job.case, job.form, runtime, reason);
                    tell(&cell);
                    set(&mut done, job.index, cell);
                }
                None => queue.push(job),
            }
        }
        // The slow ones first, so that none is left alone at the end.
        queue.sort_by_key(|job| !job.case.has(Tag::Slow));
        perform(plan, runtime, &work, &stop, queue, |job, cell| {
            tell(&cell);
            set(&mut done, job.index, cell);
        })?;
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::plain("the suite was told to end"));
        }
        cells.extend(done.into_iter().flatten());
    }
    Ok(cells)
}

fn set(done: &mut [Option<Cell>], index: usize, cell: Cell) {
    if let Some(place) = done.get_mut(index) {
        *place = Some(cell);
    }
}

fn jobs<'a>(plan: &Plan<'a>) -> Vec<Job<'a>> {
    let wanted = |form: &Form| plan.forms.is_empty() || plan.forms.contains(form);
    let count = if plan.sample { 1 } else { usize::MAX };
    let all = plan.cases.iter().flat_map(|case| {
        let forms = case.forms().into_iter().filter(wanted).take(count);
        forms.map(move |form| (case, form))
    });
    all.enumerate().map(|(index, (case, form))| Job { index, case, form }).collect()
}

/// How many cells a plan has for one runtime.
pub fn size(plan: &Plan<'_>) -> usize {
    jobs(plan).len()
}

/// Why a case does not run here.
fn skip(case: &Case, runtime: &Runtime, rootless: bool, stress: bool) -> Option<&'static str> {
    let hierarchies = crate::leftovers::hierarchies();
    let unified = hierarchies.iter().all(|hierarchy| hierarchy.unified);
    let selinux = || Path::new("/sys/fs/selinux/enforce").exists();
    let apparmor = || Path::new("/sys/kernel/security/apparmor").exists();
    if rootless && case.bundle.without_namespaces.iter().any(|kind| kind == "pid") {
        return Some("a user can mount /proc only in a pid namespace of his own");
    }
    case.tags.iter().find_map(|tag| match tag {
        Tag::Slow => None,
        Tag::Stress => (!stress).then_some("a stress case: --stress runs it"),
        Tag::Root => rootless.then_some("needs root"),
        Tag::Native => (runtime.mode != Mode::Native).then_some("only for native containers"),
        Tag::Microvm => (runtime.mode != Mode::Microvm).then_some("only for microVMs"),
        Tag::CgroupV2 => (!unified).then_some("needs a machine with cgroup v2 only"),
        Tag::CgroupV1 => unified.then_some("needs a machine with cgroup v1"),
        Tag::Apparmor => (!apparmor()).then_some("needs a kernel with AppArmor"),
        Tag::Selinux => (!selinux()).then_some("needs a kernel with an SELinux policy"),
        Tag::Kvm => (!Path::new("/dev/kvm").exists()).then_some("needs /dev/kvm"),
    })
}

fn perform(
    plan: &Plan<'_>,
    runtime: &Runtime,
    work: &Work,
    stop: &AtomicBool,
    queue: Vec<Job<'_>>,
    mut done: impl FnMut(&Job<'_>, Cell),
) -> Result<(), Failure> {
    let queue = Mutex::new(VecDeque::from(queue));
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for worker in 0..plan.jobs {
            let (sender, queue) = (sender.clone(), &queue);
            let hello = Hello {
                runtime: runtime.clone(),
                work: work.place.path.clone(),
                worker,
                cgroup: work.place.cgroup.clone(),
                rootless: work.rootless,
                patience: plan.patience,
            };
            scope.spawn(move || {
                let result = drive(&hello, plan, stop, queue, |job, cell| {
                    // The other side listens until the last sender has gone.
                    let _heard = sender.send(Ok((job, cell)));
                });
                if let Err(failure) = result {
                    let _heard = sender.send(Err(failure));
                }
            });
        }
        drop(sender);
        let mut result = Ok(());
        // How many cells have hung, while none has not.
        let mut hung = Some(0);
        for message in receiver {
            match message {
                Ok((job, cell)) => {
                    let hangs = cell.first_call().is_some_and(|call| call.ended == Ended::Hung);
                    hung = hung.filter(|_| hangs).map(|n| n + 1);
                    done(&job, cell);
                }
                Err(failure) => result = Err(failure),
            }
            if hung == Some(HOPELESS) {
                let cause = format!("given up: it hangs in each of the first {HOPELESS}");
                log::warn!("{}: {cause}", runtime.name);
                let rest = queue.lock().map(|mut queue| std::mem::take(&mut *queue));
                for job in rest.unwrap_or_default() {
                    done(&job, Cell::skipped(job.case, job.form, runtime, &cause));
                }
            }
        }
        result
    })
}

/// Feeds one worker from the queue.
fn drive<'a>(
    hello: &Hello,
    plan: &Plan<'_>,
    stop: &AtomicBool,
    queue: &Mutex<VecDeque<Job<'a>>>,
    mut done: impl FnMut(Job<'a>, Cell),
) -> Result<(), Failure> {
    let mut link = Link::start(hello)?;
    loop {
        let next = queue.lock().map(|mut queue| queue.pop_front()).unwrap_or_default();
        let Some(job) = next.filter(|_| !stop.load(Ordering::Relaxed)) else {
            link.end();
            return Ok(());
        };
        let mut runs = Vec::new();
        for time in 0..plan.repeat {
            let number = u64::try_from(job.index).unwrap_or_default() * 1000 + u64::from(time);
            let order = Order { id: job.case.id.clone(), form: job.form, number };
            match link.ask(&order) {
                Ok(answer) => {
                    runs.extend(answer.runs);
                    if runs.last().is_some_and(Observed::hangs) {
                        break;
                    }
                }
                Err(failure) => {
                    // The worker is lost: the case brought it down. Another one goes on.
                    let broken = Some(format!("the worker is lost: {failure}"));
                    runs.push(Observed { broken, ..Observed::default() });
                    link.lose();
                    link = Link::start(hello)?;
                }
            }
        }
        let cell = cell(&job, &hello.runtime, runs)?;
        done(job, cell);
    }
}

/// The cell that comes of all runs: the first that departs stands for them.
fn cell(job: &Job<'_>, runtime: &Runtime, runs: Vec<Observed>) -> Result<Cell, Failure> {
    let expect = job.case.expect(job.form);
    let expect = expect.map_err(|e| Failure::text("read case", &job.case.id, e.to_string()))?;
    let total = runs.len();
    let findings = |seen: &Observed| match runtime.engine {
        Some(engine) => judge_engine(engine, &expect, seen),
        None => judge(job.case, job.form, &expect, seen),
    };
    let judged: Vec<_> = runs.into_iter().map(|seen| (findings(&seen), seen)).collect();
    let departed = judged.iter().filter(|(findings, seen)| is_bad(findings, seen)).count();
    let worst = judged.iter().position(|(findings, seen)| is_bad(findings, seen)).unwrap_or(0);
    let Some((findings, seen)) = judged.into_iter().nth(worst) else {
        return Err(Failure::text("run case", &job.case.id, "it was not run"));
    };
    let verdict = if departed > 0 { Verdict::Departs } else { Verdict::Pass };
    Ok(Cell::measured(
        job.case, job.form, runtime, &expect, verdict, findings, seen, total, departed,
    ))
}

fn is_bad(findings: &[crate::judge::Finding], seen: &Observed) -> bool {
    !findings.is_empty() || seen.broken.is_some()
}

/// The line to a worker.
struct Link {
    child: Child,
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Link {
    fn start(hello: &Hello) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt;
        let failed = |error: &std::io::Error| Failure::io("start worker", "", error);
        let mut command = Command::new("/proc/self/exe");
        // Ctrl-C is for the suite: the worker ends its case, cleans up, and finds the line cut.
        command.args(["conform", "--worker"]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match hello.is_apart() {
            true => apart::spawn(&mut command),
            false => command.spawn().map_err(|error| failed(&error)),
        }?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::plain("a worker without streams"));
        };
        let mut link = Self { child, input, output: BufReader::new(output) };
        link.say(hello)?;
        match link.hear::<Option<String>>()? {
            Some(fault) => Err(Failure::plain(fault)),
            None => Ok(link),
        }
    }

    fn say(&mut self, message: &impl serde::Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(message)
            .map_err(|error| Failure::text("write order", "", error.to_string()))?;
        line.push(b'\n');
        let written = self.input.write_all(&line).and_then(|()| self.input.flush());
        written.map_err(|error| Failure::io("write order", "", &error))
    }

    fn ask(&mut self, order: &Order) -> Result<Answer, Failure> {
        self.say(order)?;
        self.hear()
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|e| Failure::io("read answer", "", &e))?;
        serde_json::from_str(&line).map_err(|e| Failure::text("read answer", "", e.to_string()))
    }
}

impl Link {
    /// Ends a worker that is not to be trusted any more.
    fn lose(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }

    /// Cuts the line and waits until the worker has gone.
    fn end(self) {
        let Self { mut child, input, output } = self;
        drop((input, output));
        let _ended = child.wait();
    }
}

/// Where a run has its things, and whose they are.
struct Work {
    place: Workplace,
    rootless: Option<(u32, u32)>,
}

impl Work {
    fn make() -> Result<Self, Failure> {
        let name = format!("accord-conform-{}", std::process::id());
        let uid = rustix::process::geteuid();
        let (rootless, cgroup) = match uid.is_root() {
            true => (None, Some(format!("/{name}"))),
            false => (Some((uid.as_raw(), rustix::process::getegid().as_raw())), None),
        };
        let path = std::env::temp_dir().join(&name);
        let named = path.as_os_str().as_encoded_bytes().to_vec();
        let failed = |error: &std::io::Error| Failure::io("make directory", &named, error);
        let place = Workplace::make(path, cgroup).map_err(|error| failed(&error))?;
        bundle::write_probe(&place.path.join("probe")).map_err(|error| failed(&error))?;
        Ok(Self { place, rootless })
    }
}
