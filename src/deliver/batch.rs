//! A batch from its cut-off to its end: carries out what [`crate::batch::Life`] says is next, one commit after the other.
//!
//! ```text
//! seal -> number -> render to our disk, flushed -> commit digests -> put under its name -> commit -> mark its items
//! ```
//!
//! After a crash each step is simply taken again: the number is given once, the rendered bytes are committed by their
//! digest, and a file that lies in the system with the same bytes is there already.

use super::{
    millis, now,
    render::{Rendering, batch_of, sealed_at},
};
use crate::{
    batch::{Stage, Step},
    code::Code,
    config::{
        DeliverRoute, Instance,
        batch::{Batch, Remember},
        plan::Action,
        raw::adapter::Makes,
    },
    format::{Limits, parse_json},
    keeper::Keeper,
    retry::Delays,
    store::{BatchState, NewItem, RouteNumber, Store, StoreError, ToMark},
    system::System,
    telemetry::Metrics,
    template::Scope,
    tree::Tree,
    verdict::{Class, Failure},
};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// How long a batch is left alone at most: events join, people ask.
const LOOK: Duration = Duration::from_secs(1);
/// How many items are marked in one commit.
const PORTION: u32 = 1_000;
/// How long what failed waits at most before it is tried again.
const LONGEST: Duration = Duration::from_secs(600);

/// A batch of an adapter in use, ready to run.
#[derive(Clone)]
pub struct Batcher {
    /// The adapter in use.
    pub instance: Arc<Instance>,
    /// The batch.
    pub batch: Arc<Batch>,
    /// The routes that feed it, by their numbers in the store.
    pub routes: HashMap<RouteNumber, Arc<DeliverRoute>>,
    /// The system.
    pub system: Arc<System>,
    /// The store.
    pub store: Store,
    /// The keeper of its gate: its files are put only while that is open.
    pub keeper: Arc<Keeper>,
    /// Metrics.
    pub metrics: Metrics,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Whether a step brought a batch further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// It did: look again at once.
    On,
    /// Nothing to do for now.
    Nowhere,
}

impl Batcher {
    /// Runs until it is stopped.
    pub fn start(self: Arc<Self>, tasks: &TaskTracker) {
        tasks.spawn(async move {
            let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(15));
            while !self.stop.is_cancelled() {
                let wait = match self.look().await {
                    Ok(Went::On) => continue,
                    Ok(Went::Nowhere) => {
                        delays.reset();
                        LOOK
                    }
                    Err(error) => {
                        error!(batch = self.feed(), code = %error.code, "batches cannot be looked at: {}", error.what);
                        delays.delay()
                    }
                };
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        });
    }

    /// What it is called, with its adapter.
    pub fn feed(&self) -> String {
        self.instance.feed(&self.batch.name)
    }

    /// Takes the next step of each batch. Of those that are sealed only the oldest goes on: batches do not overtake.
    async fn look(&self) -> Result<Went, StoreError> {
        let mut went = Went::Nowhere;
        let mut sealed_before = false;
        for state in self.store.batches_under_way(self.feed()).await? {
            let sealed = state.life.stage > Stage::Open;
            if sealed && sealed_before {
                continue;
            }
            sealed_before |= sealed;
            if self.stop.is_cancelled() {
                return Ok(Went::Nowhere);
            }
            if self.step(&state).await? == Went::On {
                went = Went::On;
            }
        }
        Ok(went)
    }

    async fn step(&self, state: &BatchState) -> Result<Went, StoreError> {
        // Its cut-off is a time of day, by the wall clock; what failed waits as everything does.
        let at = match state.life.stage {
            Stage::Open => Timestamp::now().as_millisecond(),
            Stage::Sealed | Stage::Numbered | Stage::Rendered | Stage::Placed | Stage::Sent => now(),
        };
        let result = match state.life.next(&self.batch.size, at) {
            Step::Wait(_) | Step::Done => return Ok(Went::Nowhere),
            Step::Seal(by) => {
                info!(
                    batch = state.feed,
                    number = state.n,
                    items = state.life.items,
                    by = by.as_str(),
                    "a batch is sealed"
                );
                self.store.seal_batch(state.n, now(), by).await?;
                crate::kill::point("batch.sealed");
                return Ok(Went::On);
            }
            Step::Postpone => {
                let next = self.batch.cut_offs.after(Timestamp::now()).map(Timestamp::as_millisecond);
                return self.store.postpone_batch(state.n, next).await.map(|()| Went::On);
            }
            Step::Number => self.number(state).await,
            Step::Render => self.render(state).await,
            Step::Put if self.is_stopped(state) || !self.keeper.may_send() => return Ok(Went::Nowhere),
            Step::Put => self.put(state).await,
            Step::Mark => self.mark(state).await,
        };
        match result {
            Ok(()) => Ok(Went::On),
            Err(failure) => self.failed(state, failure).await.map(|()| Went::Nowhere),
        }
    }

    /// It waits, visibly, and is tried again: nothing of it is lost.
    async fn failed(&self, state: &BatchState, failure: Failure) -> Result<(), StoreError> {
        let times = state.failed.min(10);
        let wait = Duration::from_secs(1 << times).min(LONGEST);
        let wait = failure.retry_after.map_or(wait, |asked| asked.max(wait));
        error!(batch = state.feed, number = state.n, stage = state.life.stage.as_str(), code = %failure.code,
               wait = crate::config::units::in_words(wait), "a batch cannot be written yet and waits: {}", failure.what);
        self.store.batch_failed(state.n, now() + millis(wait), failure.code.as_str(), failure.what).await
    }

    async fn number(&self, state: &BatchState) -> Result<(), Failure> {
        let cut_offs = &self.batch.cut_offs;
        let earliest = super::join::earliest(cut_offs, self.batch.processing, sealed_at(state));
        let wanted = state.per.parse::<jiff::civil::Date>().ok();
        let Some(day) = earliest.max(wanted) else {
            let what = "no working day is found on which the batch could be processed";
            return Err(Failure::not_done(Code::DateRefused, what));
        };
        if !cut_offs.days.knows(day) {
            warn!(batch = state.feed, day = %day, "the calendar of holidays is not for this year: only weekends count");
        }
        if wanted.is_some_and(|wanted| wanted < day) {
            warn!(batch = state.feed, number = state.n, wanted = state.per, day = %day,
                  "the batch is sealed too late for its day and is processed on the next possible one");
        }
        self.store.number_batch(state.n, self.batch.serial, day.to_string()).await.map_err(of_store)?;
        crate::kill::point("batch.numbered");
        Ok(())
    }

    /// The folder of a batch's files on our disk.
    fn folder(&self, n: i64) -> PathBuf {
        self.store.path().with_extension("files").join("batches").join(n.to_string())
    }

    async fn render(&self, state: &BatchState) -> Result<(), Failure> {
        let folder = self.folder(state.n);
        std::fs::create_dir_all(&folder).map_err(|error| of_disk(&folder, &error))?;
        let rendering = Rendering {
            instance: &self.instance,
            batch: &self.batch,
            state,
            store: &self.store,
            folder: &folder,
        };
        let files = rendering.files().await?;
        crate::kill::point("batch.written");
        self.store.batch_rendered(state.n, files).await.map_err(of_store)?;
        crate::kill::point("batch.rendered");
        Ok(())
    }

    async fn put(&self, state: &BatchState) -> Result<(), Failure> {
        let System::Files(system) = &*self.system else {
            return Err(Failure::not_done(
                Code::ExclusiveKeys,
                "the system of this batch is not reached by files",
            ));
        };
        let folder = self.instance.render(&self.batch.folder);
        let folder = folder.map_err(|failed| Failure::not_done(Code::TemplateFailed, failed.0))?;
        let files =
            self.store.batch(state.n).await.map_err(of_store)?.map(|(_, files)| files).unwrap_or_default();
        for file in files.iter().filter(|file| file.put_at.is_none()) {
            let path = self.folder(state.n).join(&file.file);
            if !path.exists() {
                warn!(
                    batch = state.feed,
                    number = state.n,
                    file = file.name,
                    "a rendered file is gone from our disk and is made again"
                );
                return self.store.render_again(state.n).await.map_err(of_store);
            }
            // An earlier try of which nobody knows: if the file is there it was put; if not, it may have been taken away.
            if file.claimed_at.is_some()
                && self.moves_money()
                && system.look(&folder, &file.name).await?.is_none()
            {
                return Err(in_doubt(state, &file.name));
            }
            let claimed_at = now();
            self.store
                .claim_batch_file(state.n, file.file.clone(), Some(claimed_at))
                .await
                .map_err(of_store)?;
            crate::kill::point("batch.claimed");
            // A bridge that stood still may have lost it to another one, which has asked a person about this file.
            if self.store.must_look_again(Some(claimed_at), now()) {
                self.store.still_leads().await.map_err(of_store)?;
            }
            if let Err(failure) = system.put(&folder, &file.name, &path, file.digest).await {
                if failure.class != Class::Unknown {
                    self.store.claim_batch_file(state.n, file.file.clone(), None).await.map_err(of_store)?;
                }
                return Err(failure);
            }
            crate::kill::point("batch.put");
            info!(
                batch = state.feed,
                number = state.n,
                file = file.name,
                bytes = file.size,
                "a batch's file is in the system"
            );
            self.store.batch_file_put(state.n, Some(file.file.clone()), now()).await.map_err(of_store)?;
        }
        self.store.batch_file_put(state.n, None, now()).await.map_err(of_store)?;
        crate::kill::point("batch.noted");
        Ok(())
    }

    /// Whether nothing is put until a person has looked and the bridge is started anew, and the batch says so already.
    fn is_stopped(&self, state: &BatchState) -> bool {
        let stopped = self.system.stopped();
        stopped.is_some_and(|stopped| state.code.as_deref() == Some(stopped.code.as_str()))
    }

    /// Whether a second file with the same items would move money twice.
    fn moves_money(&self) -> bool {
        self.routes.values().any(|route| match route.plan.makes {
            Makes::Payment | Makes::Posting => true,
            Makes::Record | Makes::Nothing => false,
        })
    }

    /// A portion of its items is put on record; with the last one the batch has come to its end.
    async fn mark(&self, state: &BatchState) -> Result<(), Failure> {
        let items = self.store.batch_to_mark(state.n, PORTION).await.map_err(of_store)?;
        let mut counts: HashMap<RouteNumber, u64> = HashMap::new();
        let mut marked = Vec::with_capacity(items.len());
        let batch = Tree::Record(batch_of(state));
        for item in items {
            *counts.entry(item.route).or_default() += 1;
            let remembered = self.remembered(&item, &batch);
            marked.push((item, remembered));
        }
        let last = marked.len() < PORTION as usize;
        self.store.mark_batch(state.n, now(), marked).await.map_err(of_store)?;
        crate::kill::point("batch.marked");
        for (route, count) in counts {
            if let Some(route) = self.routes.get(&route) {
                self.metrics.count(&route.id, "delivered", count);
            }
        }
        if last {
            let folder = self.folder(state.n);
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                warn!(
                    batch = state.feed,
                    number = state.n,
                    "the rendered files cannot be removed from our disk: {error}"
                );
            }
        }
        Ok(())
    }

    /// What is remembered of an item. A key that cannot be made leaves it without: it has been sent all the same.
    fn remembered(&self, item: &ToMark, batch: &Tree) -> Option<NewItem> {
        let remember = remember(self.routes.get(&item.route)?)?;
        let kept = item.kept.clone()?;
        let cause = parse_json(&kept, &Limits::default()).ok()?;
        let scope = Scope {
            cause: Some(&cause),
            settings: Some(&self.instance.settings),
            now: Timestamp::now(),
            more: vec![("batch", batch.clone())],
            ..Scope::default()
        };
        match remember.key.render(&scope) {
            Ok(key) => Some(NewItem { route: item.route, key, one_per: None, cause: kept, due_at: now() }),
            Err(failed) => {
                error!(batch = self.feed(), message = %item.key, code = %Code::TemplateFailed,
                       "an item is sent, but no report can be matched to it: {}", failed.0);
                None
            }
        }
    }
}

/// Nobody knows whether the system has had the file: it is not put a second time until a person has said.
fn in_doubt(state: &BatchState, name: &str) -> Failure {
    let what = format!(
        "an earlier try may have put {name} into the system, and it is not there now: the system may have taken it away. \
         Look in the system, then `packhorse batches settle {} --received` or `--not-received`",
        state.n
    );
    Failure { class: Class::Unknown, ..Failure::not_done(Code::OutcomeUnknown, what) }
}

fn remember(route: &DeliverRoute) -> Option<&Remember> {
    match &route.plan.action {
        Action::Batch(join) => join.remember.as_ref(),
        Action::Request(_) | Action::Publish(_) | Action::Statement(_) | Action::Write(_) => None,
    }
}

fn of_store(error: StoreError) -> Failure {
    Failure::not_done(error.code, error.what)
}

fn of_disk(path: &Path, error: &std::io::Error) -> Failure {
    Failure::not_done(Code::BatchNotWritten, format!("{}: {error}", path.display()))
}
