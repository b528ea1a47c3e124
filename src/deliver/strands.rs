//! The strands of an ordered route: one consumer, since two would overtake each other, whose messages are shared among
//! strands by their subjects. Strands go on side by side; within one, a turn follows the other.
//!
//! A turn looks into the strand's part of the parking lot when that is time, and carries a window of what came for it to its
//! end ([`Deliverer::carry_in_order`]). Nobody else touches its subjects meanwhile.

use super::{Deliverer, Letter, lane::Left, now};
use crate::{
    broker::{Delivery, InOrder, Settle},
    config::plan::Ordered,
    keeper::Ticket,
    order::Strand,
    retry::Delays,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, warn};

/// Strands of a route at most.
const MOST: u32 = 8;
/// Messages of the lot that are tried in one go.
const DUE: u32 = 256;
/// How long the lot is left alone at most: a person may have released something.
const LOOK: Duration = Duration::from_secs(1);
/// How long an acknowledgement waits at most for those of the messages before it, to be one with them.
const OWED: Duration = Duration::from_millis(100);

/// What a strand has before it.
struct Share {
    strand: Strand,
    /// How many messages it sends at once.
    at_once: usize,
    /// How many messages it takes for a turn.
    window: usize,
    /// How many of the lot.
    due: u32,
    /// Those that came for it, in their order.
    waiting: VecDeque<Letter>,
    /// When its part of the lot is to be looked at.
    look_at: Instant,
    /// Of which subjects anything is there, if that is known: see [`crate::store::Lot`].
    in_lot: Option<BTreeSet<[u8; 32]>>,
    /// Whether a turn is under way.
    busy: bool,
}

/// What a turn begins with.
struct Work {
    at: usize,
    strand: Strand,
    at_once: usize,
    due: u32,
    letters: Vec<Letter>,
    look_at: Instant,
    in_lot: Option<BTreeSet<[u8; 32]>>,
}

/// What has become of a turn.
struct Turn {
    at: usize,
    settled: Vec<(Delivery, Settle)>,
    look_at: Instant,
    in_lot: Option<BTreeSet<[u8; 32]>>,
    /// Whether something of the lot was tried.
    tried: bool,
}

impl Share {
    /// Begins a turn, if there is anything to do.
    fn begin(&mut self, at: usize, now: Instant) -> Option<Work> {
        if self.busy || (self.waiting.is_empty() && self.look_at > now) {
            return None;
        }
        self.busy = true;
        let letters = self.waiting.drain(..self.waiting.len().min(self.window)).collect();
        let Share { strand, at_once, due, look_at, .. } = *self;
        Some(Work { at, strand, at_once, due, letters, look_at, in_lot: self.in_lot.take() })
    }
}

impl Deliverer {
    fn shares(&self, ticket: &Ticket) -> Vec<Share> {
        let concurrency = self.route.concurrency.max(1);
        let (of, window, due) = match ticket.is_for_one() {
            true => (1, 1, 1),
            false => (concurrency.min(MOST), self.route.window.max(1) as usize, DUE),
        };
        let share = |(number, strand): (u32, Strand)| Share {
            strand,
            at_once: ((concurrency + of - 1 - number) / of).max(1) as usize,
            window,
            due,
            waiting: VecDeque::new(),
            look_at: Instant::now(),
            in_lot: None,
            busy: false,
        };
        (0..of).zip(Strand::all(of)).map(share).collect()
    }

    /// Serves the route's queue and its parking lot until the lane is lost or has to be left.
    pub(super) async fn work_in_order(
        self: &Arc<Self>,
        mut lane: InOrder,
        ticket: &Ticket,
        ordered: Ordered,
        delays: &mut Delays,
    ) -> Left {
        let mut shares = self.shares(ticket);
        let mut turns: JoinSet<Turn> = JoinSet::new();
        let left = loop {
            if self.stopped().is_some() || self.stop.is_cancelled() || !ticket.holds() {
                break Left::Over;
            }
            for (at, share) in shares.iter_mut().enumerate() {
                if let Some(work) = share.begin(at, Instant::now()) {
                    turns.spawn(self.clone().turn(ordered, work));
                }
            }
            let idle = shares.iter().filter(|share| !share.busy).map(|share| share.look_at).min();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break Left::Over,
                () = ticket.over() => break Left::Over,
                Some(ended) = turns.join_next() => {
                    if !self.ended_turn(ended, &mut lane, &mut shares, delays) {
                        break Left::Again;
                    }
                    if let Err(error) = lane.acknowledge(false).await {
                        warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                        break Left::Again;
                    }
                    crate::kill::point("deliver.acknowledged");
                }
                taken = lane.take() => match taken {
                    Ok(deliveries) => self.share_out(deliveries, &mut shares),
                    Err(error) => {
                        if !self.stop.is_cancelled() {
                            warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                        }
                        break Left::Again;
                    }
                },
                () = sleep_until(idle.unwrap_or_else(Instant::now)), if idle.is_some() => {}
                // Nothing has come to its end for a while: what waits for others before it is told by itself.
                () = sleep(OWED), if lane.owes() => {
                    if let Err(error) = lane.acknowledge(true).await {
                        warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                        break Left::Again;
                    }
                }
            }
        };
        // What is under way comes to its end; everything that is not acknowledged comes again, in its order.
        while let Some(ended) = turns.join_next().await {
            self.ended_turn(ended, &mut lane, &mut shares, delays);
        }
        if let Err(error) = lane.acknowledge(true).await {
            warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
        }
        crate::kill::point("deliver.acknowledged");
        lane.leave().await;
        left
    }

    /// Gives each strand what came for it.
    fn share_out(&self, deliveries: Vec<Delivery>, shares: &mut [Share]) {
        for delivery in deliveries {
            let letter = self.read(delivery);
            // What has no subject overtakes nothing.
            let digest = letter.subject.as_ref().map_or(&letter.key.0, |subject| &subject.digest);
            if let Some(share) = shares.get_mut(Strand::of(digest, shares.len())) {
                share.waiting.push_back(letter);
            }
        }
    }

    /// A turn has ended; whether all of its messages have come to their ends.
    fn ended_turn(
        &self,
        ended: Result<Turn, JoinError>,
        lane: &mut InOrder,
        shares: &mut [Share],
        delays: &mut Delays,
    ) -> bool {
        let turn = match ended {
            Ok(turn) => turn,
            Err(error) => {
                error!(
                    route = self.route.id,
                    "a strand has ended in a fault, its messages come again: {error}"
                );
                return false;
            }
        };
        if let Some(share) = shares.get_mut(turn.at) {
            (share.busy, share.look_at, share.in_lot) = (false, turn.look_at, turn.in_lot);
        }
        let mut all = true;
        let mut any = turn.tried;
        for (delivery, settle) in turn.settled {
            match settle {
                Settle::Ack => {
                    any = true;
                    lane.done(delivery);
                }
                Settle::GiveBack | Settle::Reject => all = false,
            }
        }
        if any {
            delays.reset();
        }
        all
    }

    /// One turn of a strand: what is due in its part of the lot, then a window of what came for it.
    async fn turn(self: Arc<Self>, ordered: Ordered, work: Work) -> Turn {
        let Work { at, strand, at_once, due: most, letters, mut look_at, mut in_lot } = work;
        let mut tried = false;
        if look_at <= Instant::now() {
            match self.store.lot(self.number, strand, now(), (most, in_lot.is_none())).await {
                Ok(lot) => {
                    in_lot = in_lot.or(lot.subjects);
                    tried = !lot.due.is_empty();
                    let noted = !tried || self.try_due(lot.due, at_once).await;
                    let wait = match (tried, noted, lot.next) {
                        // There may be more, or another of the same subject now.
                        (true, true, _) => Duration::ZERO,
                        (false, _, Some(next)) => {
                            Duration::from_millis(u64::try_from(next - now()).unwrap_or(0))
                        }
                        (true, false, _) | (false, _, None) => LOOK,
                    };
                    look_at = Instant::now() + wait.min(LOOK);
                }
                Err(error) => {
                    error!(route = self.route.id, code = %error.code, "the parking lot cannot be read: {}", error.what);
                    look_at = Instant::now() + LOOK;
                }
            }
        }
        let mut settled = Vec::new();
        if !letters.is_empty() {
            let waits;
            (settled, waits) = self.carry_in_order(ordered, letters, (at_once, in_lot.as_ref())).await;
            if !waits.is_empty() {
                look_at = Instant::now();
            }
            if let Some(subjects) = &mut in_lot {
                subjects.extend(waits);
            }
        }
        Turn { at, settled, look_at, in_lot, tried }
    }
}
