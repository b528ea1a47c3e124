//! The order of files: a file whose serial number, date or name is not above that of the last one that counts waits for a
//! person, since what it says may be older than what is known. Knows no adapter: where the number stands is said by the route.

use super::{Collector, pickup::Halt};
use crate::{
    code::Code,
    config::plan::{Sequence, Source},
    store::{FileState, TakenFile},
    tree::Tree,
};
use std::cmp::Ordering;

impl Collector {
    /// Sees whether a file comes in its order, and writes its place down.
    pub(super) async fn in_order(&self, file: &TakenFile) -> Result<(), Halt> {
        let Source::Pickup(pickup) = &self.route.plan.source else { return Ok(()) };
        let Some(sequence) = &pickup.sequence else { return Ok(()) };
        let held = |why: String| Err(Halt::Held { code: Code::FileOutOfOrder, why });
        let is_accepted = file.state == FileState::Accepted;
        let place = match self.place(sequence, file).await? {
            Place::Said(place) => place,
            Place::NoRecord => return Ok(()),
            Place::Unsaid(_) if is_accepted => return Ok(()),
            Place::Unsaid(path) => {
                return held(format!(
                    "its first record says nothing at `{path}`, which gives the order of files"
                ));
            }
        };
        self.store.place_file(file.n, place.clone()).await?;
        let last = self.store.last_done(self.number).await?;
        match last.as_ref().and_then(|last| Some((last, last.sequence.as_deref()?))) {
            Some((last, before)) if !is_accepted && order(&place, before) != Ordering::Greater => {
                held(format!(
                    "it is `{place}` and {} was `{before}`, which counts already: the files may have come in the wrong order",
                    last.name
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What says where a file stands among the others.
    async fn place(&self, sequence: &Sequence, file: &TakenFile) -> Result<Place, Halt> {
        let path = match sequence {
            Sequence::Name => return Ok(Place::Said(file.name.clone())),
            Sequence::At(path) => path,
        };
        let mut records = self.open_copy(file, None).await?;
        loop {
            let (rest, found) = self.chunk(records).await?;
            records = rest;
            if found.is_empty() {
                return Ok(Place::NoRecord);
            }
            let good = |document: &[u8]| self.read(document, None).ok();
            let first = found.iter().filter(|found| !found.wrong).find_map(|found| good(&found.document));
            if let Some(document) = first {
                let said = path.find(&document).and_then(Tree::to_plain_text);
                let said = said.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
                return Ok(said.map_or_else(|| Place::Unsaid(path.to_string()), Place::Said));
            }
        }
    }
}

/// Where a file stands among the others.
enum Place {
    /// Here.
    Said(String),
    /// Its records do not say it at this path.
    Unsaid(String),
    /// There is no record in it that could be read.
    NoRecord,
}

/// The order of two places: runs of digits count as numbers, all else as letters.
fn order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (digits_a, digits_b) = (digits(a), digits(b));
        if !digits_a.is_empty() && !digits_b.is_empty() {
            let (x, y) = (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
            let ordered = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
            if ordered != Ordering::Equal {
                return ordered;
            }
            (a, b) =
                (a.get(digits_a.len()..).unwrap_or_default(), b.get(digits_b.len()..).unwrap_or_default());
            continue;
        }
        let (mut rest_a, mut rest_b) = (a.chars(), b.chars());
        match (rest_a.next(), rest_b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) if x != y => return x.cmp(&y),
            (_, _) => (a, b) = (rest_a.as_str(), rest_b.as_str()),
        }
    }
}

/// The digits at the beginning of a text.
fn digits(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::order;
    use std::cmp::Ordering;

    #[test]
    fn numbers_count_as_numbers_whatever_stands_around_them() {
        for (low, high) in [
            ("9", "10"),
            ("999999", "1000000"),
            ("children-2026-11-09.csv", "children-2026-11-24.csv"),
            ("extract_9.csv", "extract_10.csv"),
            ("a", "b"),
            ("", "1"),
            ("1", "1a"),
            ("340282366920938463463374607431768211456", "340282366920938463463374607431768211457"),
        ] {
            assert_eq!(order(low, high), Ordering::Less, "{low} {high}");
            assert_eq!(order(high, low), Ordering::Greater, "{high} {low}");
        }
        for (one, other) in [("7", "0007"), ("a", "a"), ("", ""), ("x01-2", "x1-02")] {
            assert_eq!(order(one, other), Ordering::Equal, "{one} {other}");
        }
    }
}
