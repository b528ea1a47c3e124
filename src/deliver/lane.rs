//! A lane of a deliver route: takes a window of its queue, has it carried to its end, settles it. It takes only while the
//! route's gate lets it; when it does not, what was not begun is given back and nothing is consumed.

use super::Deliverer;
use crate::{
    broker::{BrokerError, InOrder, Lane},
    keeper::Ticket,
    retry::Delays,
};
use std::{sync::Arc, time::Duration};
use tracing::{error, warn};

/// Why a lane is left.
pub(super) enum Left {
    /// We are stopping, or the gate shuts.
    Over,
    /// It is lost, or something could be brought to no end: it is opened again after a while.
    Again,
}

impl Deliverer {
    /// Runs until it is stopped.
    pub(super) async fn lane(self: Arc<Self>, number: u32) {
        let tag = format!("{}#{number}", self.route.id);
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(15));
        while let Some(ticket) = self.keeper.pass(&self.stop).await {
            if self.told_to_stop() {
                return;
            }
            let window = if ticket.is_for_one() { 1 } else { self.route.window as usize };
            let (link, queue) = (&self.link, &self.route.queue);
            let left = match self.route.plan.order {
                None => match Lane::open(link, queue, window, &tag, &self.stop).await {
                    Ok(None) => return,
                    Ok(Some(lane)) => {
                        delays.reset();
                        Ok(self.work(lane, &ticket).await)
                    }
                    Err(error) => Err(error),
                },
                Some(ordered) => match InOrder::open(link, queue, window, &tag, &self.stop).await {
                    Ok(None) => return,
                    Ok(Some(lane)) => Ok(self.work_in_order(lane, &ticket, ordered, &mut delays).await),
                    Err(error) => Err(error),
                },
            };
            match left {
                Ok(Left::Over) => continue,
                Ok(Left::Again) => {}
                Err(error) => {
                    self.if_missing(error.code);
                    warn!(route = self.route.id, code = %error.code, "cannot consume: {}", error.what)
                }
            }
            drop(ticket);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(delays.delay()) => {}
            }
        }
    }

    /// Works until the lane is lost, or what was given with the ticket ends: then everything not begun is given back.
    async fn work(&self, mut lane: Lane, ticket: &Ticket) -> Left {
        loop {
            if self.stopped().is_some() {
                lane.close().await;
                return Left::Over;
            }
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    lane.close().await;
                    return Left::Over;
                }
                () = ticket.over() => {
                    lane.close().await;
                    return Left::Over;
                }
                taken = lane.take() => taken,
            };
            let settled = match taken {
                Ok(deliveries) => self.carry(deliveries).await,
                Err(error) => {
                    if !self.stop.is_cancelled() {
                        self.lane_is_lost(&error);
                    }
                    return Left::Again;
                }
            };
            if let Err(error) = lane.settle(settled).await {
                self.lane_is_lost(&error);
                return Left::Again;
            }
            crate::kill::point("deliver.acknowledged");
        }
    }

    pub(super) fn lane_is_lost(&self, error: &BrokerError) {
        warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
    }

    /// Whether the system has been found to be another: then nothing is delivered any more.
    pub(super) fn told_to_stop(&self) -> bool {
        let stopped = self.stopped();
        if let Some(failure) = &stopped {
            error!(route = self.route.id, code = %failure.code, "nothing is delivered any more: {}", failure.what);
        }
        stopped.is_some()
    }
}
