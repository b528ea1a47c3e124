//! A lane of a deliver route: takes a window of its queue, has it carried to its end, settles it. It takes only while the
//! route's gate lets it; when it does not, what was not begun is given back and nothing is consumed.

use super::Deliverer;
use crate::{broker::Lane, keeper::Ticket, retry::Delays};
use std::{sync::Arc, time::Duration};
use tracing::{error, warn};

/// Whether a lane was lost, or closed by us.
enum Lost {
    Yes,
    No,
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
            match Lane::open(&self.link, &self.route.queue, window, &tag, &self.stop).await {
                Ok(None) => return,
                Ok(Some(lane)) => {
                    delays.reset();
                    if let Lost::No = self.work(lane, &ticket).await {
                        continue;
                    }
                }
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
    async fn work(&self, mut lane: Lane, ticket: &Ticket) -> Lost {
        loop {
            if self.stopped().is_some() {
                lane.close().await;
                return Lost::No;
            }
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    lane.close().await;
                    return Lost::No;
                }
                () = ticket.over() => {
                    lane.close().await;
                    return Lost::No;
                }
                taken = lane.take() => taken,
            };
            let settled = match taken {
                Ok(deliveries) => self.carry(deliveries).await,
                Err(error) => {
                    if !self.stop.is_cancelled() {
                        warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                    }
                    return Lost::Yes;
                }
            };
            if let Err(error) = lane.settle(settled).await {
                warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                return Lost::Yes;
            }
            crate::kill::point("deliver.acknowledged");
        }
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
