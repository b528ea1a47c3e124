//! What a report is about: the items that were sent in batches and are remembered, looked up before events are made.

use super::Collector;
use crate::{
    code::Code,
    config::raw::batch::Unmatched,
    emit::{self, Abouts, Ground},
    format::{Limits, parse_json},
    store::Known,
    verdict::Failure,
};

impl Collector {
    /// What is known of what a document is about. A report that overtakes its own batch waits for it.
    pub(super) async fn sent_before(&self, ground: Ground<'_>) -> Result<Abouts, Failure> {
        let mut known = Abouts::new();
        for wanted in emit::abouts(&self.route.plan.events, ground)? {
            let failed = |error: crate::store::StoreError| Failure::not_done(error.code, error.what);
            let route = self.store.route(&wanted.route).await.map_err(failed)?;
            match (self.store.about(route, wanted.key.clone()).await.map_err(failed)?, wanted.unmatched) {
                (Known::Sent(cause), _) => {
                    let cause = parse_json(&cause, &Limits::default()).unwrap_or_default();
                    known.insert((wanted.route, wanted.key), cause);
                }
                (Known::OnItsWay, _) => {
                    let what = format!(
                        "the report is about something that is not yet known to be sent; a batch of {} is on its way",
                        wanted.route
                    );
                    return Err(Failure::not_done(Code::ReportUnmatched, what));
                }
                (Known::Unknown, Unmatched::Dead) => {
                    let what = format!("the report is about something that {} has not sent", wanted.route);
                    return Err(Failure::refused(Code::ReportUnmatched, "about", what));
                }
                (Known::Unknown, Unmatched::Emit) => {}
            }
        }
        Ok(known)
    }
}
