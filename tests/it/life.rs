//! The life of messages that make money, on a model: the broker, the system, the people and the clock are a model, the journal is
//! the real one, and what is done next is said by the course that the bridge itself follows. Whatever happens in whatever order,
//! nothing is carried out twice and nothing is lost.

use crate::support::Folder;
use packhorse::{
    code::Code,
    config::{plan::RetryPolicy, raw::adapter::Repeat},
    course::{self, Course, Next, Question, Rules},
    event::Key,
    store::{Asked, Claim, Opener, Place, Record, RouteNumber, State, Store, Went},
    verdict::Failure,
};
use std::time::Duration;

/// How long a request may be on its way after everybody has given it up, in milliseconds.
const LATE: u64 = 9_000;
/// How long the system's search lags behind. Both together are less than the settling time.
const LAG: i64 = 20_000;
const SETTLE: Duration = Duration::from_secs(30);

struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    /// One time in so many.
    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// A copy of a message, in a queue or in the bridge's hands.
#[derive(Debug, Clone)]
struct Letter {
    message: usize,
    attempt: u32,
    replay: u32,
    settled: bool,
    first_failed: Option<i64>,
    due: i64,
}

/// What the bridge does with a copy, an effect at a time.
#[derive(Debug, Clone)]
enum Doing {
    Next(Next),
    /// The request has left; this is what the system says, when it is heard.
    Sent(Result<(), Failure>),
    Publish(Ending),
    Record(Ending),
    Acknowledge,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Done,
    Later { wait: Duration },
    Dead { code: Code },
}

struct Task {
    copy: Letter,
    course: Course,
    doing: Doing,
}

struct World {
    chance: Chance,
    now: i64,
    folder: Folder,
    /// Nothing while the bridge is down.
    store: Option<Store>,
    route: RouteNumber,
    repeat: Repeat,
    retry: RetryPolicy,
    queue: Vec<Letter>,
    dead: Vec<(Letter, bool)>,
    tasks: Vec<Task>,
    /// When the system carried each message out.
    done: Vec<Vec<i64>>,
    /// Requests that are still on their way: message, when they arrive.
    on_the_way: Vec<(usize, i64)>,
    faults: bool,
}

fn key(message: usize) -> Key {
    Key::of("urn:model", &message.to_string())
}

impl World {
    async fn new(seed: u64, repeat: Repeat, messages: usize) -> World {
        let folder = Folder::new();
        let store = Store::open(&folder.0.join("life.db"), 1 << 20, Opener::Bridge).unwrap();
        let route = store.route("pay.post").await.unwrap();
        let retry = RetryPolicy {
            at_once: 1,
            waits: [5, 30, 120].map(Duration::from_secs).to_vec(),
            give_up: Duration::from_secs(600),
        };
        let copy =
            |message| Letter { message, attempt: 1, replay: 0, settled: false, first_failed: None, due: 0 };
        World {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: 1_700_000_000_000,
            folder,
            store: Some(store),
            route,
            repeat,
            retry,
            queue: (0..messages).map(copy).collect(),
            dead: Vec::new(),
            tasks: Vec::new(),
            done: vec![Vec::new(); messages],
            on_the_way: Vec::new(),
            faults: true,
        }
    }

    fn rules(&self) -> (Repeat, Option<Question>, RetryPolicy) {
        let question = (self.repeat == Repeat::Probe)
            .then_some(Question { settle: SETTLE, patience: Duration::from_secs(300) });
        (self.repeat, question, self.retry.clone())
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    /// What the system does with a request, and what it says of it.
    fn system(&mut self, message: usize) -> Result<(), Failure> {
        let cut = || Failure::unknown("the answer was cut");
        let choice = if self.faults { self.chance.below(9) } else { 0 };
        match choice {
            0..=2 => self.carry_out(message),
            3 => {
                self.carry_out(message);
                return Err(cut());
            }
            4 => {
                let late = self.chance.below(LATE) as i64;
                self.on_the_way.push((message, self.now + late));
                return Err(cut());
            }
            5 => return Err(cut()),
            6 => return Err(Failure::not_done(Code::SystemBusy, "500")),
            7 => return Err(Failure::away(Code::SystemBusy, "503")),
            // Some refuse what they have just stored; where nobody can ask, a refusal must be true.
            _ => {
                if self.repeat == Repeat::Probe && self.chance.one_in(2) {
                    self.carry_out(message);
                }
                return Err(Failure::refused(Code::SystemRefuses, "", "400"));
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, message: usize) {
        self.trace(format_args!("{message} is carried out"));
        // A key that the system honours: the same again does nothing.
        if self.repeat != Repeat::Key || self.done[message].is_empty() {
            self.done[message].push(self.now);
        }
    }

    fn arrives(&mut self) {
        let now = self.now;
        let (there, on_the_way) = self.on_the_way.iter().copied().partition(|(_, at)| *at <= now);
        self.on_the_way = on_the_way;
        let there: Vec<(usize, i64)> = there;
        for (message, _) in there {
            self.carry_out(message);
        }
    }

    /// Takes a copy out of the queue and claims it.
    async fn take(&mut self) {
        let due: Vec<usize> = (0..self.queue.len()).filter(|at| self.queue[*at].due <= self.now).collect();
        if due.is_empty() || self.tasks.len() >= 3 {
            return;
        }
        let copy = self.queue.swap_remove(due[self.chance.below(due.len() as u64) as usize]);
        let claim = Claim {
            key: key(copy.message),
            part: 0,
            source: "urn:model".to_owned(),
            id: copy.message.to_string(),
            attempt: copy.attempt,
            replay: copy.replay,
            settled: copy.settled,
        };
        let place = self.store().claim(self.route, self.now, vec![claim]).await.unwrap().remove(0);
        self.trace(format_args!("take {copy:?} -> {place:?}"));
        match place {
            Place::Go(went) => self.begin(copy, &went),
            Place::Busy => self.queue.push(Letter { due: self.now + 5_000, ..copy }),
            // A duplicate: acknowledged.
            Place::Done | Place::Buried(_) | Place::Stale => {}
            Place::Reply { .. } => panic!("nothing is answered here"),
        }
    }

    fn begin(&mut self, copy: Letter, went: &Went) {
        let first_failed = went.failed_at.or(copy.first_failed).unwrap_or(self.now);
        let course = Course::new(copy.attempt, went.doubt, went.sent_at, first_failed, went.claimed_at);
        let (repeat, question, retry) = self.rules();
        let next = course.begin(&Rules { repeat, question, retry: &retry });
        self.tasks.push(Task { copy, course, doing: Doing::Next(next) });
    }

    /// The next effect of one of the tasks.
    async fn advance(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let at = self.chance.below(self.tasks.len() as u64) as usize;
        let mut task = self.tasks.swap_remove(at);
        let (repeat, question, retry) = self.rules();
        let rules = Rules { repeat, question, retry: &retry };
        let (store, route, message) = (self.store(), self.route, task.copy.message);
        self.trace(format_args!("{message}: {:?} doubt {}", task.doing, task.course.doubt));
        task.doing = match task.doing {
            Doing::Next(Next::Send { .. }) => {
                if task.course.sends(self.now, &rules) {
                    store.sending(route, key(message), 0, self.now).await.unwrap();
                }
                Doing::Sent(self.system(message))
            }
            Doing::Sent(Ok(())) => Doing::Record(Ending::Done),
            Doing::Sent(Err(failure)) => {
                Doing::Next(task.course.failed(failure, self.chance.one_in(4), self.now, &rules))
            }
            Doing::Next(Next::Ask) => match self.ask(message) {
                Ok(true) => Doing::Record(Ending::Done),
                Ok(false) => Doing::Next(task.course.absent(self.now, &rules)),
                Err(failure) => Doing::Next(task.course.unanswered(failure, self.now, &rules)),
            },
            Doing::Next(Next::End(course::Ending::Later { wait, .. })) => {
                Doing::Publish(Ending::Later { wait })
            }
            Doing::Next(Next::End(course::Ending::Dead { code, .. })) => {
                Doing::Publish(Ending::Dead { code })
            }
            Doing::Publish(ending) => {
                self.publish(&task, &ending);
                Doing::Record(ending)
            }
            Doing::Record(ending) => {
                let record = self.record_of(&task, &ending);
                store.record(route, self.now, None, vec![(key(message), 0, record)]).await.unwrap();
                Doing::Acknowledge
            }
            Doing::Acknowledge => return,
        };
        self.tasks.push(task);
    }

    /// Whether the system shows it.
    fn ask(&mut self, message: usize) -> Result<bool, Failure> {
        match self.faults && self.chance.one_in(4) {
            true if self.chance.one_in(2) => Err(Failure::away(Code::SystemBusy, "503")),
            true => Err(Failure::not_done(Code::ProbeUnclear, "nonsense")),
            false => {
                let lag = if self.chance.one_in(2) { LAG } else { 0 };
                Ok(self.done[message].iter().any(|at| at + lag <= self.now))
            }
        }
    }

    fn publish(&mut self, task: &Task, ending: &Ending) {
        let first_failed = Some(task.course.first_failed);
        match ending {
            Ending::Done => {}
            Ending::Later { wait } => self.queue.push(Letter {
                attempt: task.copy.attempt + 1,
                first_failed,
                due: self.now + wait.as_millis() as i64,
                settled: false,
                ..task.copy
            }),
            Ending::Dead { .. } => self.dead.push((task.copy.clone(), task.course.doubt)),
        }
    }

    fn record_of(&self, task: &Task, ending: &Ending) -> Record {
        let doubt = task.course.doubt;
        match ending {
            Ending::Done => Record::Delivered { opens: None },
            Ending::Later { wait } => Record::Waiting {
                attempt: task.copy.attempt + 1,
                due_at: self.now + wait.as_millis() as i64,
                failed_at: task.course.first_failed,
                doubt,
            },
            Ending::Dead { code } => Record::Dead { code: code.as_str(), doubt, why: None, holds: None },
        }
    }

    /// `kill -9`: what was not acknowledged comes again, and another run begins.
    async fn crash(&mut self) {
        self.trace(format_args!("crash"));
        for task in self.tasks.drain(..) {
            self.queue.push(task.copy);
        }
        self.store = None;
        let path = self.folder.0.join("life.db");
        // The lock is free when the store's thread has ended.
        let store =
            crate::support::until("the store", async || Store::open(&path, 1 << 20, Opener::Bridge).ok())
                .await;
        self.store = Some(store);
    }

    /// A person looks at a dead letter, who can see for certain what the system has done, once nothing is on its way any more.
    async fn person(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let at = self.chance.below(self.dead.len() as u64) as usize;
        let (copy, doubt) = self.dead[at].clone();
        let message = copy.message;
        let moving = self.on_the_way.iter().any(|(other, _)| *other == message)
            || self.tasks.iter().any(|task| task.copy.message == message);
        if moving {
            return;
        }
        let state = self.store().state(self.route, key(message)).await.unwrap();
        let was_done = !self.done[message].is_empty();
        self.trace(format_args!("a person looks at {copy:?}: doubt {doubt}, done {was_done}, {state:?}"));
        // A letter that is left over from a crash between two steps is one of a message that goes on: replayed it is a duplicate.
        if was_done && matches!(state, Some((State::Dead, _))) {
            let discarded = vec![(key(message), 0, Record::Discarded)];
            self.store().record(self.route, self.now, None, discarded).await.unwrap();
        } else {
            let known = self.store().replays(self.route, key(message)).await.unwrap();
            let replay = copy.replay.max(known) + 1;
            let settled = doubt && !was_done;
            self.queue.push(Letter {
                attempt: 1,
                replay,
                settled,
                first_failed: None,
                due: self.now,
                ..copy
            });
            // The command may die before it has noted what it has published, and before the letter is removed: both are left.
            if self.faults && self.chance.one_in(8) {
                return;
            }
            self.store().replayed(self.route, key(message), replay, self.now).await.unwrap();
            // A crash between the replay and the removal of the letter leaves both.
            if self.faults && self.chance.one_in(8) {
                return;
            }
        }
        self.dead.swap_remove(at);
    }

    fn trace(&self, what: std::fmt::Arguments<'_>) {
        if std::env::var_os("LIFE_TRACE").is_some() {
            println!("{:>9} {what}", self.now - 1_700_000_000_000);
        }
    }

    async fn step(&mut self) {
        match self.chance.below(20) {
            0..=4 => self.take().await,
            5..=14 => self.advance().await,
            15 if self.faults && self.chance.one_in(2) => self.crash().await,
            16 if self.faults && self.chance.one_in(3) => {
                let message = self.chance.below(self.done.len() as u64) as usize;
                let due = self.now;
                self.queue.push(Letter {
                    message,
                    attempt: 1,
                    replay: 0,
                    settled: false,
                    first_failed: None,
                    due,
                });
            }
            17 => self.person().await,
            _ => {
                self.now += self.chance.below(if self.faults { 8_000 } else { 60_000 }) as i64;
                self.arrives();
            }
        }
    }

    /// What must hold at every moment.
    async fn holds(&self, seed: u64) {
        for (message, times) in self.done.iter().enumerate() {
            assert!(times.len() <= 1, "seed {seed}: message {message} was carried out at {times:?}");
            let somewhere = self.queue.iter().any(|copy| copy.message == message)
                || self.tasks.iter().any(|task| task.copy.message == message)
                || self.dead.iter().any(|(copy, _)| copy.message == message);
            if !somewhere {
                let state = self.store().state(self.route, key(message)).await.unwrap();
                let ended = matches!(state, Some((State::Delivered | State::Discarded, _)));
                assert!(ended, "seed {seed}: message {message} is lost: {state:?}");
            }
        }
    }
}

/// How many lives; `LIFE_SEEDS` for a long run.
fn seeds(few: u64) -> u64 {
    std::env::var("LIFE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(few)
}

async fn lives(seeds: std::ops::Range<u64>, repeat: Repeat) {
    let only: Option<u64> = std::env::var("LIFE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seeds.filter(|seed| only.is_none_or(|only| only == *seed)) {
        let mut world = World::new(seed, repeat, 3).await;
        for _ in 0..150 {
            world.step().await;
            world.holds(seed).await;
        }
        world.faults = false;
        let mut steps = 0;
        while !(world.queue.is_empty() && world.tasks.is_empty() && world.dead.is_empty()) {
            world.step().await;
            world.holds(seed).await;
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: it never ends: {:?} {:?}", world.queue, world.dead);
        }
        for (message, times) in world.done.iter().enumerate() {
            assert_eq!(
                times.len(),
                1,
                "seed {seed}: message {message} came to an end and was not carried out"
            );
        }
        let account = world.store().account(Asked::default()).await.unwrap();
        assert!(account.closes(), "seed {seed}: {account:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_a_request_that_is_asked_about_is_carried_out_once() {
    lives(1..seeds(40), Repeat::Probe).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_a_request_that_nobody_can_ask_about_is_carried_out_once() {
    lives(1..seeds(25), Repeat::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_a_request_with_a_key_is_carried_out_and_its_message_comes_to_an_end() {
    lives(1..seeds(15), Repeat::Key).await;
}
