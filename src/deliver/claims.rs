//! Who has a message: the claim that is committed before it is sent or, where a repeat does no harm, together with what
//! became of it.

use super::{Deliverer, Letter, attempt::End, now};
use crate::{
    config::{plan::Action, raw::adapter::Repeat},
    event::Key,
    store::{Claim, Place, Record, StoreError, Went},
};
use std::{collections::HashSet, sync::Mutex};
use tracing::warn;

impl Deliverer {
    /// Whether a repeat does no harm, and nothing stands between the message and its one sending: then the claim is not
    /// committed before it, but together with its outcome. After a crash the message is sent again.
    pub(super) fn may_repeat(&self) -> bool {
        let plan = &self.route.plan;
        match plan.action {
            Action::Publish(_) => matches!(plan.repeat, Repeat::Key | Repeat::Harmless),
            // Joining a batch is one commit with its claim: nothing can be between them.
            Action::Batch(_) => true,
            Action::Request(_) | Action::Statement(_) | Action::Write(_) => false,
        }
    }

    /// How each message stands, in order. Where a repeat does harm, it is claimed for good.
    pub(super) async fn places(
        &self,
        claims: Vec<Claim>,
        under_way: &mut UnderWay<'_>,
    ) -> Result<Vec<Place>, StoreError> {
        if !self.may_repeat() {
            return self.store.claim(self.number, now(), claims).await;
        }
        // First that it is under way, then the look: what another lane has just finished is seen in one or the other.
        let free: Vec<bool> = claims.iter().map(|claim| under_way.enter(claim.key)).collect();
        let mut places = self.store.look(self.number, claims.clone()).await?;
        for (place, _) in places.iter_mut().zip(free).filter(|(_, free)| !free) {
            *place = Place::Busy;
        }
        let is_copy = |place: &Place| matches!(place, Place::Done | Place::Buried(_) | Place::Stale);
        let copies: Vec<Claim> = claims
            .into_iter()
            .zip(&places)
            .filter(|(_, place)| is_copy(place))
            .map(|(claim, _)| claim)
            .collect();
        if !copies.is_empty() {
            self.store.claim(self.number, now(), copies).await?;
        }
        Ok(places)
    }

    /// What becomes of a message that another bridge has.
    pub(super) fn taken_over(&self, letter: &Letter) -> End {
        warn!(
            route = self.route.id,
            message = %letter.key,
            "this bridge stood still, and another has taken the message over: it is not sent, and is given back"
        );
        End::GiveBack
    }

    /// The last look before a window is sent, as [`super::attempt`] has it before a request: which of it another bridge has. Where
    /// nothing was claimed it is none, if we still lead.
    pub(super) async fn lost_of(
        &self,
        letters: &[Letter],
        window: &[(usize, Went)],
        said_at: i64,
    ) -> Result<Vec<usize>, StoreError> {
        if !self.store.must_look_again(Some(said_at), now()) {
            return Ok(Vec::new());
        }
        if self.may_repeat() {
            return self.store.still_leads().await.map(|()| Vec::new());
        }
        let claimed: Vec<(usize, (Key, u32))> =
            window.iter().filter_map(|(at, _)| Some((*at, (letters.get(*at)?.key, 0)))).collect();
        let asked = claimed.iter().map(|(_, claim)| *claim).collect();
        let ours = self.store.are_ours(self.number, asked).await?;
        Ok(claimed.iter().zip(ours).filter(|(_, ours)| !ours).map(|((at, _), _)| *at).collect())
    }

    /// Records what became of whole messages, in one commit.
    pub(super) async fn record_all(&self, records: Vec<(&Letter, Record)>) -> Result<(), StoreError> {
        if self.may_repeat() {
            // What is given back without a claim has left no trace.
            let records: Vec<(Claim, Record)> = records
                .into_iter()
                .filter(|(_, record)| !matches!(record, Record::GivenBack))
                .map(|(letter, record)| (claim(letter), record))
                .collect();
            return match records.is_empty() {
                true => Ok(()),
                false => self.store.claim_and_record(self.number, now(), self.digest(), records).await,
            };
        }
        let records: Vec<(Key, u32, Record)> =
            records.into_iter().map(|(letter, record)| (letter.key, 0, record)).collect();
        match records.is_empty() {
            true => Ok(()),
            false => self.store.record(self.number, now(), self.digest(), records).await,
        }
    }
}

/// Keys that are under way in one window, until it is closed.
pub(super) struct UnderWay<'a> {
    pub(super) of: &'a Mutex<HashSet<Key>>,
    pub(super) keys: Vec<Key>,
}

impl UnderWay<'_> {
    /// Whether nobody else has it under way.
    fn enter(&mut self, key: Key) -> bool {
        let free = self.of.lock().is_ok_and(|mut under_way| under_way.insert(key));
        if free {
            self.keys.push(key);
        }
        free
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Ok(mut under_way) = self.of.lock() {
            for key in &self.keys {
                under_way.remove(key);
            }
        }
    }
}

/// The claim of a message as a whole.
pub(super) fn claim(letter: &Letter) -> Claim {
    let (source, id) = match &letter.event {
        Ok(event) => (event.source.clone(), event.id.clone()),
        Err(_) => (String::new(), letter.delivery.properties.message_id().unwrap_or_default().to_owned()),
    };
    Claim {
        key: letter.key,
        part: 0,
        source,
        id,
        attempt: letter.past.attempt,
        replay: letter.past.replay,
        settled: letter.past.settled,
    }
}
