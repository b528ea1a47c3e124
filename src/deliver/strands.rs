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
use tracing::error;

/// Strands of a route at most.
const MOST: u32 = 8;
/// Messages of the lot that are tried in one go.
const DUE: u32 = 256;
/// How long the lot is left alone at most: a person may have released something.
const LOOK: Duration = Duration::from_secs(1);
/// When nothing has happened for so long, what is done no longer waits for the messages before it to be acknowledged with them.
const OWED: Duration = Duration::from_millis(100);

/// A strand, with what only its own turn changes.
struct Own {
    strand: Strand,
    /// How many messages it sends at once.
    at_once: usize,
    /// How many of the lot it tries in one go.
    due: u32,
    /// When its part of the lot is to be looked at.
    look_at: Instant,
    /// Of which subjects anything is there, if that is known: see [`crate::store::Lot`].
    in_lot: Option<BTreeSet<[u8; 32]>>,
}

/// What a strand has before it.
struct Share {
    /// Nothing while a turn is under way, which has it.
    own: Option<Own>,
    /// How many messages it takes for a turn.
    window: usize,
    /// Those that came for it, in their order.
    waiting: VecDeque<Letter>,
}

/// What has become of a turn.
struct Turn {
    at: usize,
    own: Own,
    settled: Vec<(Delivery, Settle)>,
    /// Whether something of the lot was tried.
    tried: bool,
}

impl Share {
    /// What a turn begins with, if there is anything to do.
    fn begin(&mut self, now: Instant) -> Option<(Own, Vec<Letter>)> {
        let own = self.own.take_if(|own| !self.waiting.is_empty() || own.look_at <= now)?;
        Some((own, self.waiting.drain(..self.waiting.len().min(self.window)).collect()))
    }
}

impl Deliverer {
    fn shares(&self, ticket: &Ticket) -> Vec<Share> {
        let concurrency = self.route.concurrency.max(1);
        let (of, window, due) = match ticket.is_for_one() {
            true => (1, 1, 1),
            false => (concurrency.min(MOST), self.route.window.max(1) as usize, DUE),
        };
        let share = |(number, strand): (u32, Strand)| {
            let at_once = ((concurrency + of - 1 - number) / of).max(1) as usize;
            let own = Own { strand, at_once, due, look_at: Instant::now(), in_lot: None };
            Share { own: Some(own), window, waiting: VecDeque::new() }
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
                if let Some((own, letters)) = share.begin(Instant::now()) {
                    turns.spawn(self.clone().turn(ordered, at, own, letters));
                }
            }
            let idle = shares.iter().filter_map(|share| Some(share.own.as_ref()?.look_at)).min();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break Left::Over,
                () = ticket.over() => break Left::Over,
                Some(ended) = turns.join_next() => {
                    let all = self.ended_turn(ended, &mut lane, &mut shares, delays);
                    if !all || !self.acknowledged(&mut lane, false).await {
                        break Left::Again;
                    }
                }
                taken = lane.take() => match taken {
                    Ok(deliveries) => self.share_out(deliveries, &mut shares),
                    Err(error) => {
                        if !self.stop.is_cancelled() {
                            self.lane_is_lost(&error);
                        }
                        break Left::Again;
                    }
                },
                () = sleep_until(idle.unwrap_or_else(Instant::now)), if idle.is_some() => {}
                () = sleep(OWED), if lane.owes() => {
                    if !self.acknowledged(&mut lane, true).await {
                        break Left::Again;
                    }
                }
            }
        };
        // What is under way comes to its end; everything that is not acknowledged comes again, in its order.
        while let Some(ended) = turns.join_next().await {
            self.ended_turn(ended, &mut lane, &mut shares, delays);
        }
        self.acknowledged(&mut lane, true).await;
        lane.leave().await;
        left
    }

    /// Acknowledges what is done, see [`InOrder::acknowledge`]; whether that got through.
    async fn acknowledged(&self, lane: &mut InOrder, all: bool) -> bool {
        match lane.acknowledge(all).await {
            Ok(()) => {
                crate::kill::point("deliver.acknowledged");
                true
            }
            Err(error) => {
                self.lane_is_lost(&error);
                false
            }
        }
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
                // Not what it says: a panic may have a value of a message in it.
                error!(
                    route = self.route.id,
                    panicked = error.is_panic(),
                    "a strand has ended in a fault of ours; its messages stay with the broker and come again"
                );
                return false;
            }
        };
        if let Some(share) = shares.get_mut(turn.at) {
            share.own = Some(turn.own);
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
    async fn turn(self: Arc<Self>, ordered: Ordered, at: usize, mut own: Own, letters: Vec<Letter>) -> Turn {
        let tried = own.look_at <= Instant::now() && self.look_into_lot(&mut own).await;
        let mut settled = Vec::new();
        if !letters.is_empty() {
            let waits;
            (settled, waits) = self.carry_in_order(ordered, letters, own.at_once, own.in_lot.as_ref()).await;
            if !waits.is_empty() {
                own.look_at = Instant::now();
            }
            if let Some(subjects) = &mut own.in_lot {
                subjects.extend(waits);
            }
        }
        Turn { at, own, settled, tried }
    }

    /// Tries what is due in a strand's part of the lot, and says when that is to be looked at again. Whether there was anything.
    async fn look_into_lot(&self, own: &mut Own) -> bool {
        let looked = self.store.lot(self.number, own.strand, now(), own.due, own.in_lot.is_none()).await;
        let (tried, wait) = match looked {
            Ok(lot) => {
                own.in_lot = own.in_lot.take().or(lot.subjects);
                let until = |next: i64| Duration::from_millis(u64::try_from(next - now()).unwrap_or(0));
                match lot.due.is_empty() {
                    true => (false, lot.next.map_or(LOOK, until)),
                    // There may be more, or another of the same subject now.
                    false if self.try_due(lot.due, own.at_once).await => (true, Duration::ZERO),
                    false => (true, LOOK),
                }
            }
            Err(error) => {
                error!(route = self.route.id, code = %error.code, "the parking lot cannot be read: {}", error.what);
                (false, LOOK)
            }
        };
        own.look_at = Instant::now() + wait.min(LOOK);
        tried
    }
}
