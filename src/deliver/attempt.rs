//! One attempt at delivering one message, or one part of it: with everything that keeps a payment from being made twice.

mod broker;
mod file;
mod statement;

pub use broker::{document_for_broker, end_of};

use super::{Deliverer, Letter, now};
use crate::{
    broker::{Message, Properties},
    code::Code,
    config::{
        plan::{Action, Before, Probe, Question, Request},
        raw::adapter::Meaning,
    },
    course::{self, Course, Ending, Next, Rules},
    emit::{self, Ground, Opened, Outgoing},
    event::Event,
    format::Format,
    letter::Stage,
    mapping::{Context, Mapping, path::Path},
    retry::Delays,
    store::{Answer, BEFORE_A_PERSON, Open, StoreError, Went},
    system::{Body, HttpSystem, Said, System, classify, sign},
    template::{Scope, Texts},
    tree::{Name, Record, Tree},
    verdict::{self, Class, Failure},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// What a system has done.
pub struct Done {
    /// Its answer, whole.
    pub answer: Answer,
    /// The events made of it; a reply that cannot be made does not undo what the system has done.
    pub reply: Result<Vec<Outgoing>, Failure>,
    /// What is open from here on; that it cannot be said does not undo it either.
    pub opens: Result<Option<Opened>, Failure>,
}

/// What an attempt costs a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Costs {
    /// It is one attempt nearer to its end.
    Attempt,
    /// Nothing: it is not its fault.
    Nothing,
}

impl Costs {
    /// How many attempts.
    pub fn attempts(self) -> u32 {
        match self {
            Costs::Attempt => 1,
            Costs::Nothing => 0,
        }
    }
}

/// How an attempt ended otherwise.
pub enum End {
    /// It is tried again later.
    Later { failure: Failure, wait: Duration, doubt: bool, first_failed: Timestamp, costs: Costs },
    /// It is given up.
    Dead { stage: Stage, code: Code, failure: Failure, doubt: bool },
    /// It was not begun, or cannot be recorded: back to its queue.
    GiveBack,
}

impl End {
    /// The store failed: not the message's fault.
    pub fn store(error: &StoreError) -> End {
        tracing::error!(code = %error.code, "the store failed, the message is given back: {}", error.what);
        End::GiveBack
    }

    fn dead(stage: Stage, failure: Failure) -> End {
        End::Dead { stage, code: failure.code, failure, doubt: false }
    }
}

/// A part of an event that is sent by itself.
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its name for people: `lines[2]`.
    pub name: String,
    /// The event with only this part.
    pub event: Event,
}

/// The parts of an event: for each entry of the list the event with that entry alone.
pub fn parts(event: &Event, each: &Path) -> Vec<Part> {
    let Some(step) = each.steps().first() else { return Vec::new() };
    let entries = each.find_all(&event.data);
    entries
        .into_iter()
        .enumerate()
        .map(|(index, entry)| {
            let mut event = event.clone();
            *event.data.record_mut().entry(&step.name) = Tree::List(vec![entry.clone()]);
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            Part { number, name: format!("{}[{number}]", step.name.local), event }
        })
        .collect()
}

/// What all steps of an attempt see.
struct Attempt<'a> {
    deliverer: &'a Deliverer,
    letter: &'a Letter,
    event: &'a Event,
    part: u32,
    /// What was read before the first attempt, and the event's own data.
    cause: Tree,
    course: Course,
    /// When the store last said that the message is ours.
    ours_at: Option<i64>,
}

/// Sends one message or part, with all its care.
///
/// # Errors
/// How it ended if it was not delivered.
pub async fn send(
    deliverer: &Deliverer,
    letter: &Letter,
    event: &Event,
    part: u32,
    went: Went,
) -> Result<Done, End> {
    let mut attempt = Attempt {
        ours_at: went.claimed_at,
        deliverer,
        letter,
        event,
        part,
        cause: cause(event, read_kept(went.kept.as_deref())),
        course: Course::new(
            letter.past.attempt,
            went.doubt,
            went.sent_at,
            went.failed_at.or(letter.past.first_failed.map(Timestamp::as_millisecond)).unwrap_or_else(now),
            went.claimed_at,
        ),
    };
    let _only = attempt.only_one().await?;
    attempt.run().await
}

/// What mappings read as `cause`: the event's data under `event`, beside what was kept.
fn cause(event: &Event, kept: Option<Tree>) -> Tree {
    let mut record = match kept {
        Some(Tree::Record(record)) => record,
        _ => Record::new(),
    };
    *record.entry(&Name::plain("event")) = event.data.clone();
    Tree::Record(record)
}

/// What was kept, as a tree.
fn read_kept(kept: Option<&str>) -> Option<Tree> {
    crate::format::parse_json(kept?, &crate::format::Limits::default()).ok()
}

/// Holds the place of something of which only one may be under way.
struct Only<'a>(&'a Deliverer, String);

impl Drop for Only<'_> {
    fn drop(&mut self) {
        if let Ok(mut under_way) = self.0.one_per.lock() {
            under_way.remove(&self.1);
        }
    }
}

impl<'a> Attempt<'a> {
    /// Nothing is opened for what is open already, or has come to an end after which there must be no second.
    async fn only_one(&self) -> Result<Option<Only<'a>>, End> {
        let plan = &self.deliverer.route.plan;
        let Some((opens, template)) =
            plan.opens.as_ref().and_then(|opens| Some((opens, opens.one_per.as_ref()?)))
        else {
            return Ok(None);
        };
        let scope = Scope {
            event: Some(self.event),
            settings: Some(&self.deliverer.route.instance.settings),
            ..Scope::default()
        };
        let one_per = template.render(&scope).map_err(|failed| {
            End::dead(Stage::Mapping, Failure::refused(Code::TemplateFailed, "one_per", failed.0))
        })?;
        let waits = |what: &str| End::Later {
            failure: Failure::not_done(Code::StillOpen, what),
            wait: verdict::wait(self.letter.past.attempt, &plan.retry),
            doubt: self.course.doubt,
            first_failed: self.first_failed(),
            costs: Costs::Attempt,
        };
        let held = self.deliverer.one_per.lock().is_ok_and(|mut under_way| under_way.insert(one_per.clone()));
        if !held {
            return Err(waits("another one of the same is being sent at this moment"));
        }
        let only = Only(self.deliverer, one_per.clone());
        let route = format!("{}.{}", self.deliverer.route.instance.name, opens.route);
        let Some((number, _)) = self.deliverer.asking.get(&route) else { return Ok(Some(only)) };
        match self.deliverer.store.one_per(*number, one_per).await.map_err(|error| End::store(&error))? {
            None => Ok(Some(only)),
            Some(Open::Since(_)) => {
                Err(waits("an earlier one of the same is still open in the system; it is being asked about"))
            }
            Some(Open::Settled(outcome)) if outcome == BEFORE_A_PERSON => Err(waits(
                "what became of an earlier one of the same is before a person: its dead letter must be replayed or discarded first",
            )),
            Some(Open::Settled(outcome)) if opens.not_after.contains(&outcome) => {
                let what =
                    format!("an earlier one of the same has ended in {outcome}: a second would do it twice");
                Err(End::dead(Stage::Sending, Failure::refused(Code::AlreadyConcluded, "", what)))
            }
            Some(Open::Settled(_)) => Ok(Some(only)),
        }
    }

    /// Carries out what its course says.
    async fn run(&mut self) -> Result<Done, End> {
        let plan = self.deliverer.route.plan.clone();
        let rules = Rules {
            repeat: plan.repeat,
            question: plan
                .probe
                .as_ref()
                .map(|probe| course::Question { settle: probe.settle, patience: probe.patience }),
            retry: &plan.retry,
        };
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut next = self.course.begin(&rules);
        loop {
            next = match next {
                Next::Send { again, anew } => {
                    if anew {
                        self.cause = cause(self.event, None);
                    }
                    if again && !self.pause(delays.delay()).await {
                        let stopping = Failure::not_done(Code::SystemBusy, "the bridge is stopping");
                        return Err(self.ended(self.course.later(stopping, now(), &rules)));
                    }
                    self.note(&rules).await?;
                    match self.once().await {
                        Ok(done) => return Ok(done),
                        Err(Step::End(end)) => return Err(end),
                        Err(Step::Failed(failure)) => {
                            if failure.class == Class::Unknown {
                                self.in_doubt();
                            }
                            let once = self.deliverer.keeper.is_probing();
                            self.course.failed(failure, once, now(), &rules)
                        }
                    }
                }
                Next::Ask => match self.ask().await? {
                    Asked::Done(done) => return Ok(*done),
                    Asked::Absent => self.course.absent(lived_since(self.course.sent_at), &rules),
                    Asked::Unanswered(failure) => self.course.unanswered(failure, now(), &rules),
                },
                Next::End(ending) => return Err(self.ended(ending)),
            };
        }
    }

    /// How the attempt ended, when nothing is sent or asked any more.
    fn ended(&self, ending: Ending) -> End {
        let doubt = self.course.doubt;
        match ending {
            Ending::Later { failure, wait } => {
                let (first_failed, costs) = (self.first_failed(), Costs::Attempt);
                End::Later { failure, wait, doubt, first_failed, costs }
            }
            Ending::Dead { code, failure, asking } => {
                let stage = if asking { Stage::Asking } else { Stage::Sending };
                End::Dead { stage, code, failure, doubt }
            }
        }
    }

    fn first_failed(&self) -> Timestamp {
        Timestamp::from_millisecond(self.course.first_failed).unwrap_or_else(|_| Timestamp::now())
    }

    /// Whether the time went by without our being stopped.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.deliverer.stop.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }

    /// Notes that it is about to be sent, where that has to be.
    async fn note(&mut self, rules: &Rules<'_>) -> Result<(), End> {
        let moment = now();
        if self.course.sends(moment, rules) {
            let (route, key) = (self.deliverer.number, self.letter.key);
            self.ours(self.deliverer.store.sending(route, key, self.part, moment).await)?;
            self.ours_at = Some(moment);
            crate::kill::point("deliver.asked");
        }
        Ok(())
    }

    /// The last thing before it is sent. A bridge that stood still may have lost its messages to another one: what the store said
    /// of them a while ago does not count.
    async fn is_still_ours(&self) -> Result<(), Step> {
        if !self.deliverer.store.must_look_again(self.ours_at, now()) {
            return Ok(());
        }
        let claimed = vec![(self.letter.key, self.part)];
        let said = self.deliverer.store.are_ours(self.deliverer.number, claimed).await;
        self.ours(said.map(|ours| ours == [true])).map_err(Step::End)
    }

    fn ours(&self, said: Result<bool, StoreError>) -> Result<(), End> {
        match said {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.deliverer.taken_over(self.letter)),
            Err(error) => Err(End::store(&error)),
        }
    }

    fn in_doubt(&self) {
        let label = crate::telemetry::RouteLabel { route: self.deliverer.route.id.clone() };
        self.deliverer.metrics.in_doubt.get_or_create_owned(&label).inc();
    }

    /// Makes the document and sends it, once.
    async fn once(&mut self) -> Result<Done, Step> {
        let plan = self.deliverer.route.plan.clone();
        if let (System::Sql(system), Action::Statement(write)) = (&*self.deliverer.system, &plan.action) {
            return self.write(system, write).await;
        }
        if let (System::Files(system), Action::Write(write)) = (&*self.deliverer.system, &plan.action) {
            self.is_still_ours().await?;
            self.write_file(system, write).await.map_err(Step::Failed)?;
            crate::kill::point("deliver.sent");
            self.course.doubt = false;
            let answer = Answer { content_type: None, body: Vec::new() };
            return Ok(Done { answer, reply: Ok(Vec::new()), opens: Ok(None) });
        }
        let (System::Http(system), Action::Request(request)) = (&*self.deliverer.system, &plan.action) else {
            let failure =
                Failure::refused(Code::ExclusiveKeys, "", "this route sends to a broker in windows");
            return Err(Step::End(End::dead(Stage::Sending, failure)));
        };
        if let Some(before) = &plan.before {
            self.read_before(system, before).await?;
        }
        let mapping = request.mapping.as_ref().or(plan.mapping.as_ref());
        let (heard, scope_parts) = self.request(system, request, mapping).await?;
        crate::kill::point("deliver.sent");
        let scope = scope_parts.scope(self);
        let said = classify(&heard, &plan.answers, plan.answer_format, system.error_code(), &scope)
            .map_err(Step::Failed)?;
        self.course.doubt = false;
        self.done(&said, Answer { content_type: heard.content_type.clone(), body: heard.body.to_vec() })
            .map_err(Step::End)
    }

    /// Reads what is kept for all attempts, if it has not been read.
    async fn read_before(&mut self, system: &HttpSystem, before: &Before) -> Result<(), Step> {
        let kept = |name: &str| self.cause.as_record().is_some_and(|record| record.get_plain(name).is_some());
        if before.keep.iter().all(|(name, _)| kept(name)) {
            return Ok(());
        }
        let format = self.deliverer.route.plan.answer_format.unwrap_or(Format::Json);
        let (heard, parts) = self.request(system, &before.request, before.request.mapping.as_ref()).await?;
        let scope = parts.scope(self);
        let said = classify(&heard, &before.answers, Some(format), system.error_code(), &scope)
            .map_err(Step::Failed)?;
        let mut record = Record::new();
        for (name, path) in &before.keep {
            let value = said.document.as_ref().and_then(|document| path.find(document));
            let Some(value) = value else {
                let what = format!("what is read before the first attempt has no `{path}`");
                return Err(Step::Failed(Failure::refused(Code::ValueMissing, path.to_string(), what)));
            };
            record.push(Name::plain(name.as_str()), value.clone());
        }
        let kept = crate::format::write_json(&Tree::Record(record.clone()));
        self.deliverer
            .store
            .keep(self.deliverer.number, self.letter.key, self.part, kept)
            .await
            .map_err(|error| Step::End(End::store(&error)))?;
        crate::kill::point("deliver.kept");
        self.cause = cause(self.event, Some(Tree::Record(record)));
        Ok(())
    }

    /// One request with its document, values and trace.
    async fn request(
        &self,
        system: &HttpSystem,
        request: &Request,
        mapping: Option<&Arc<Mapping>>,
    ) -> Result<(crate::system::Heard, ScopeParts), Step> {
        let mut parts =
            ScopeParts { values: Texts::new(), nonce: crate::telemetry::nonce(), now: Timestamp::now() };
        let instance = &self.deliverer.route.instance;
        parts.values = sign::values(instance, &parts.scope(self)).map_err(Step::Failed)?;
        let scope = parts.scope(self);
        let body = match (mapping, request.method.as_str()) {
            (Some(mapping), _) => Some(self.document(mapping, &parts)?),
            (None, "GET" | "DELETE") => None,
            // Without a mapping the event itself is the document, but only where the route has none for anything.
            (None, _) if self.deliverer.route.plan.mapping.is_none() && self.sends_event(request) => {
                Some(Body {
                    bytes: Bytes::from(self.event.to_json()),
                    content_type: crate::event::MEDIA_TYPE.to_owned(),
                })
            }
            (None, _) => None,
        };
        if self.is_own(request) {
            self.is_still_ours().await?;
        }
        let began = std::time::Instant::now();
        let heard =
            system.call(request, &scope, body, self.letter.trace.as_deref()).await.map_err(Step::Failed);
        self.deliverer.metrics.request(&self.deliverer.route.id, began.elapsed());
        Ok((heard?, parts))
    }

    /// Whether this request is the route's own, not one that reads or asks.
    fn is_own(&self, request: &Request) -> bool {
        matches!(&self.deliverer.route.plan.action, Action::Request(own) if std::ptr::eq(own, request))
    }

    /// Whether this request is the route's own and carries the event itself.
    fn sends_event(&self, request: &Request) -> bool {
        self.is_own(request)
            && request.headers.iter().any(|(name, template)| {
                name.eq_ignore_ascii_case("content-type") && template.source() == crate::event::MEDIA_TYPE
            })
    }

    fn document(&self, mapping: &Mapping, parts: &ScopeParts) -> Result<Body, Step> {
        let document = self.tree(mapping, parts)?;
        let bytes = mapping
            .format
            .encode(&document, &mapping.style)
            .map_err(|error| self.not_mapped(Failure::refused(error.code, "", error.what)))?;
        Ok(Body { bytes: Bytes::from(bytes), content_type: content_type(mapping) })
    }

    fn not_mapped(&self, failure: Failure) -> Step {
        Step::End(End::Dead { stage: Stage::Mapping, code: failure.code, failure, doubt: self.course.doubt })
    }

    fn tree(&self, mapping: &Mapping, parts: &ScopeParts) -> Result<Tree, Step> {
        let context = Context {
            settings: &self.deliverer.route.instance.settings,
            values: &parts.values,
            cause: Some(&self.cause),
            now: parts.now,
            trace: None,
        };
        mapping
            .to_document(self.event, context)
            .map_err(|failures| self.not_mapped(emit::of_mapping(&failures)))
    }

    /// Asks whether an earlier request was carried out.
    async fn ask(&mut self) -> Result<Asked, End> {
        let plan = self.deliverer.route.plan.clone();
        let Some(probe) = &plan.probe else {
            return Ok(Asked::Unanswered(Failure::unknown("there is no way to ask")));
        };
        match self.probe(probe).await {
            Ok(Said { meaning: Meaning::Absent, .. }) => Ok(Asked::Absent),
            Ok(said) => {
                self.course.doubt = false;
                let document = said.document.clone().unwrap_or_default();
                let format = match &probe.question {
                    Question::Request { format, .. } => *format,
                    Question::Statement(_) => Format::Json,
                };
                let answer = self.answer_of(format, &document);
                self.done(&said, answer).map(|done| Asked::Done(Box::new(done)))
            }
            Err(failure) => Ok(Asked::Unanswered(failure)),
        }
    }

    /// What the probe found as an answer of the route's own format, so that a reply can be made of it at any time.
    fn answer_of(&self, format: Format, document: &Tree) -> Answer {
        let format = self.deliverer.route.plan.answer_format.unwrap_or(format);
        let bytes = format.encode(document, &crate::format::Style::default()).unwrap_or_default();
        Answer { content_type: Some(format.media_type().to_owned()), body: bytes }
    }

    async fn probe(&self, probe: &Probe) -> Result<Said, Failure> {
        let (system, request, answers, format) = match (&probe.question, &*self.deliverer.system) {
            (Question::Statement(statement), System::Sql(system)) => {
                return self.find(system, statement).await;
            }
            (Question::Request { request, answers, format }, System::Http(system)) => {
                (system, request, answers, *format)
            }
            (Question::Statement(_) | Question::Request { .. }, _) => {
                return Err(Failure::not_done(Code::ProbeUnclear, "the question does not fit the system"));
            }
        };
        let heard = self.request(system, request, request.mapping.as_ref()).await;
        let (heard, parts) = heard.map_err(|step| match step {
            Step::Failed(failure) => failure,
            Step::End(_) => Failure::not_done(Code::ProbeUnclear, "the request that asks could not be made"),
        })?;
        // A fault must not be taken for an answer, nor an answer that no rule knows for a yes: only the rules count.
        let said = classify(&heard, answers, Some(format), system.error_code(), &parts.scope(self))?;
        match said.meaning {
            Meaning::Delivered | Meaning::Absent if said.ruled => Ok(said),
            _ => Err(Failure::not_done(
                Code::ProbeUnclear,
                format!("the system answered {} to the question, which no rule explains", heard.status),
            )),
        }
    }

    /// What is to be done with an answer that means delivered.
    fn done(&self, said: &Said, answer: Answer) -> Result<Done, End> {
        let plan = &self.deliverer.route.plan;
        let nothing = Tree::Null;
        let document = said.document.as_ref().unwrap_or(&nothing);
        let ground = ground(
            self.deliverer,
            self.event,
            document,
            &self.cause,
            self.letter.trace.as_deref(),
            self.part,
        );
        let reply = match plan.reply.is_empty() {
            true => Ok(Vec::new()),
            false => emit::emit(&plan.reply, ground.on()).map(|emitted| emitted.events),
        };
        let opens = match &plan.opens {
            None => Ok(None),
            Some(opens) => emit::open(opens, &ground.on()).map(Some),
        };
        Ok(Done { answer, reply, opens })
    }
}

/// What a system said when it was asked.
enum Asked {
    /// It has done it.
    Done(Box<Done>),
    /// It does not know of it.
    Absent,
    /// Nobody knows.
    Unanswered(Failure),
}

/// What a step came to.
enum Step {
    /// A failure to be judged.
    Failed(Failure),
    /// The end of the attempt.
    End(End),
}

/// What scopes of one request have in common.
struct ScopeParts {
    values: Texts,
    nonce: String,
    now: Timestamp,
}

impl ScopeParts {
    fn scope<'s>(&'s self, attempt: &'s Attempt<'_>) -> Scope<'s> {
        Scope {
            event: Some(attempt.event),
            cause: Some(&attempt.cause),
            settings: Some(&attempt.deliverer.route.instance.settings),
            values: Some(&self.values),
            now: self.now,
            nonce: &self.nonce,
            ..Scope::default()
        }
    }
}

/// The ground that replies are made on, with the texts it borrows.
struct OwnGround<'a> {
    deliverer: &'a Deliverer,
    event: &'a Event,
    document: &'a Tree,
    cause: &'a Tree,
    trace: Option<&'a str>,
    identity: String,
}

fn ground<'a>(
    deliverer: &'a Deliverer,
    event: &'a Event,
    document: &'a Tree,
    cause: &'a Tree,
    trace: Option<&'a str>,
    part: u32,
) -> OwnGround<'a> {
    let identity = if part == 0 { event.id.clone() } else { format!("{}:{part}", event.id) };
    OwnGround { deliverer, event, document, cause, trace, identity }
}

impl OwnGround<'_> {
    fn on(&self) -> Ground<'_> {
        Ground {
            instance: &self.deliverer.route.instance,
            council: &self.deliverer.council,
            document: self.document,
            cause: Some(self.cause),
            change: None,
            about: None,
            event: Some(self.event),
            identity: &self.identity,
            now: Timestamp::now(),
            trace: self.trace,
        }
    }
}

/// The events of a reply and what is open, made from an answer that was recorded.
///
/// # Errors
/// The answer cannot be read, or no mapping fits it.
pub fn reply_of(
    deliverer: &Deliverer,
    event: &Event,
    trace: Option<&str>,
    answer: &Answer,
    kept: Option<&str>,
    part: u32,
) -> Result<(Vec<Outgoing>, Option<Opened>), Failure> {
    let plan = &deliverer.route.plan;
    let format = plan.answer_format.unwrap_or(Format::Json);
    let charset = answer.content_type.as_deref().and_then(crate::system::answer::charset_of);
    let document = match answer.body.is_empty() {
        true => Tree::Null,
        false => format
            .decode(&answer.body, charset.as_deref(), &crate::format::Limits::default())
            .map_err(|error| Failure::refused(error.code, "answer", error.to_string()))?,
    };
    let cause = cause(event, read_kept(kept));
    let ground = ground(deliverer, event, &document, &cause, trace, part);
    let events = match plan.reply.is_empty() {
        true => Vec::new(),
        false => emit::emit(&plan.reply, ground.on())?.events,
    };
    let opened = plan.opens.as_ref().map(|opens| emit::open(opens, &ground.on())).transpose()?;
    Ok((events, opened))
}

/// Now, as if no clock had been set forward since then: what was skipped settles nothing.
fn lived_since(then: Option<i64>) -> i64 {
    let then = then.unwrap_or(0);
    then.saturating_add(super::millis(crate::clock::since(then)))
}

/// The content type of a mapping's document.
fn content_type(mapping: &Mapping) -> String {
    let media_type = mapping.format.media_type();
    let charset = mapping.style.layout.as_ref().map_or(mapping.style.charset, |layout| Some(layout.encoding));
    match (mapping.format, charset) {
        (Format::Json | Format::Form, None) => media_type.to_owned(),
        (_, charset) => format!(
            "{media_type}; charset={}",
            charset.map_or("utf-8", encoding_rs::Encoding::name).to_lowercase()
        ),
    }
}
