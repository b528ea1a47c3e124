//! Order per subject: what an ordered route does with a message whose predecessor has not come to its end.
//!
//! Messages of one subject never overtake each other, and those of other subjects flow on. What cannot be sent yet stands in
//! the parking lot: in the store, committed, and only then acknowledged. The first of a subject waits there for its next
//! attempt, the others for the first. One that is given up holds its successors, if the route says so, until it has been
//! replayed, discarded, or its successors are released by a person.
//!
//! Pure: knows no store and no queue. The tests carry it out on a model of both, and kill it at every step.

use crate::event::{Key, hex};
use ring::digest::{SHA256, digest};

/// What messages are about, of which none may overtake another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Its SHA-256, under which it is kept: a subject may be long.
    pub digest: [u8; 32],
    /// Its beginning, for people.
    pub shown: String,
}

/// How much of a subject people see.
const SHOWN: usize = 100;

impl Subject {
    /// The subject of this text; nothing if there is none.
    pub fn of(text: &str) -> Option<Subject> {
        if text.trim().is_empty() {
            return None;
        }
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
        Some(Subject { digest: bytes, shown: text.chars().take(SHOWN).collect() })
    }

    /// The beginning of its digest, by which a person may name it.
    pub fn short(&self) -> String {
        hex(self.digest.get(..6).unwrap_or_default())
    }
}

/// A share of a route's subjects, by a range of their digests. What is about them is done one after the other; strands
/// go on side by side, and how many there are may differ from one run to the next: nothing outside the process knows of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strand {
    number: u8,
    of: u8,
}

impl Strand {
    /// So many strands, at least one and at most 255, which share all subjects.
    pub fn all(of: u32) -> Vec<Strand> {
        let of = u8::try_from(of.max(1)).unwrap_or(u8::MAX);
        (0..of).map(|number| Strand { number, of }).collect()
    }

    /// Which of so many strands takes care of a digest.
    pub fn of(digest: &[u8; 32], of: usize) -> usize {
        usize::from(digest[0]) * of / 256
    }

    /// Its digests: from this one, which belongs to it, to that one, which does not.
    pub fn digests(self) -> (Vec<u8>, Vec<u8>) {
        let first = |number: u8| (u32::from(number) * 256).div_ceil(u32::from(self.of));
        // Above all of them, where there is no such byte.
        let bound = |byte: u32| u8::try_from(byte).map_or_else(|_| vec![u8::MAX; 33], |byte| vec![byte]);
        (bound(first(self.number)), bound(first(self.number + 1)))
    }
}

/// How a subject stands on a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// The message that was given up, and holds the others.
    pub held_by: Option<Key>,
    /// How many stand in the parking lot.
    pub parked: u64,
}

/// What is done with a message that comes from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Nothing stands before it: it is sent.
    Send,
    /// It is the one that was given up, and comes again: it is sent, and if it must wait, it waits in the first place.
    SendFirst,
    /// It is parked behind the others.
    Park,
    /// It stands in the parking lot already: a copy that came because its acknowledgement was lost.
    Known,
}

/// What has become of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is out of the way.
    Done,
    /// It was parked for another attempt.
    Parked,
    /// It was given up, and holds the others.
    Holds,
    /// It was given up, and the others go on.
    GoesOn,
    /// It was a copy, of one that is done or was given up: it is acknowledged and changes nothing.
    Copy,
}

impl Sequence {
    /// Whether nothing stands before the next message.
    pub fn is_free(&self) -> bool {
        self.held_by.is_none() && self.parked == 0
    }

    /// What is done with a message; `is_parked` says whether it stands in the lot itself.
    pub fn admit(&self, key: Key, is_parked: bool) -> Admit {
        match () {
            () if is_parked => Admit::Known,
            () if self.held_by == Some(key) => Admit::SendFirst,
            () if self.is_free() => Admit::Send,
            () => Admit::Park,
        }
    }

    /// A message that was sent, from the queue or (`was_parked`) from the lot, has come to this.
    pub fn ended(&mut self, key: Key, ended: Ended, was_parked: bool) {
        if ended == Ended::Copy {
            return;
        }
        let out_of_lot = u64::from(was_parked && ended != Ended::Parked);
        self.parked =
            self.parked.saturating_sub(out_of_lot) + u64::from(!was_parked && ended == Ended::Parked);
        match ended {
            Ended::Holds => self.held_by = Some(key),
            Ended::Done | Ended::Parked | Ended::GoesOn if self.held_by == Some(key) => self.held_by = None,
            Ended::Done | Ended::Parked | Ended::GoesOn | Ended::Copy => {}
        }
    }

    /// A message was parked behind the others.
    pub fn park(&mut self) {
        self.parked += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    /// A small generator of numbers: the same for the same seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, most: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % most.max(1)
        }
    }

    type Message = (usize, usize);

    /// A queue, a store and a system, as far as order rests on them.
    #[derive(Default)]
    struct World {
        /// What the broker has, in its order, and whether a person has replayed it; what is not acknowledged stays in front.
        queue: VecDeque<(Message, bool)>,
        lot: BTreeMap<usize, VecDeque<Message>>,
        held_by: BTreeMap<usize, Message>,
        dead: BTreeSet<Message>,
        finished: BTreeSet<Message>,
        /// What the system has been given, in order.
        given: Vec<Message>,
        /// Those whose order was given up: by the route, or by a person.
        loose: BTreeSet<Message>,
        discarded: BTreeSet<Message>,
    }

    fn key((subject, number): Message) -> Key {
        Key::of(&subject.to_string(), &number.to_string())
    }

    impl World {
        fn sequence(&self, subject: usize) -> Sequence {
            Sequence {
                held_by: self.held_by.get(&subject).map(|message| key(*message)),
                parked: self.lot.get(&subject).map_or(0, |lot| lot.len() as u64),
            }
        }

        /// Sends a message; the system may have it although we die before that is on record, and is asked before it gets it again.
        fn send(&mut self, message: Message, random: &mut Random, calm: bool) -> Option<Ended> {
            let crash = !calm && random.below(8) == 0;
            let outcome = if calm { 0 } else { random.below(4) };
            if outcome == 0 || self.given.contains(&message) {
                if !self.given.contains(&message) {
                    self.given.push(message);
                }
                return (!crash).then_some(Ended::Done);
            }
            match (crash, outcome) {
                (true, _) => None,
                (false, 1) if message.1 % 5 == 4 => Some(Ended::GoesOn),
                (false, 1) => Some(Ended::Holds),
                (false, _) => Some(Ended::Parked),
            }
        }

        /// One commit: what has become of a message.
        fn commit(&mut self, message: Message, ended: Ended, was_parked: bool) {
            let (subject, mut sequence) = (message.0, self.sequence(message.0));
            sequence.ended(key(message), ended, was_parked);
            let lot = self.lot.entry(subject).or_default();
            match ended {
                Ended::Parked if was_parked => {}
                Ended::Parked => lot.push_front(message),
                Ended::Done | Ended::Holds | Ended::GoesOn => lot.retain(|parked| *parked != message),
                Ended::Copy => unreachable!("nothing is committed of a copy"),
            }
            match ended {
                Ended::Done => {
                    self.finished.insert(message);
                    self.dead.remove(&message);
                }
                Ended::Holds | Ended::GoesOn => {
                    self.dead.insert(message);
                }
                Ended::Parked => {
                    self.dead.remove(&message);
                }
                Ended::Copy => unreachable!("nothing is committed of a copy"),
            }
            if ended == Ended::GoesOn {
                self.loose.insert(message);
            }
            match sequence.held_by {
                None => self.held_by.remove(&subject),
                Some(_) if ended == Ended::Holds => self.held_by.insert(subject, message),
                Some(_) => None,
            };
            assert_eq!(self.sequence(subject), sequence, "the store and the sequence agree");
        }

        /// Takes a window from the queue. It is acknowledged last, as a whole, and comes again if we die before that; what is known of
        /// the store is what it said at the beginning, whatever a person does meanwhile.
        fn take(&mut self, random: &mut Random, calm: bool) {
            let window: Vec<(Message, bool)> = self.queue.iter().copied().take(1 + random.below(4)).collect();
            let mut known: BTreeMap<usize, Sequence> =
                window.iter().map(|((subject, _), _)| (*subject, self.sequence(*subject))).collect();
            let parked: BTreeSet<Message> = self.lot.values().flatten().copied().collect();
            for (message, replayed) in &window {
                let message = *message;
                if !calm && random.below(6) == 0 {
                    self.person(random);
                }
                let buried = self.dead.contains(&message);
                let is_copy = self.finished.contains(&message)
                    || self.discarded.contains(&message)
                    || (buried && !replayed);
                let sequence = known.get_mut(&message.0).expect("it was asked about");
                let ended = match sequence.admit(key(message), parked.contains(&message)) {
                    Admit::Known => continue,
                    Admit::Park => {
                        sequence.park();
                        if !is_copy {
                            // A replay of one whose place was given up waits like a new one.
                            self.dead.remove(&message);
                            self.lot.entry(message.0).or_default().push_back(message);
                        }
                        continue;
                    }
                    Admit::Send | Admit::SendFirst if is_copy => Ended::Copy,
                    Admit::Send | Admit::SendFirst => match self.send(message, random, calm) {
                        Some(ended) => {
                            self.commit(message, ended, false);
                            ended
                        }
                        None => return,
                    },
                };
                sequence.ended(key(message), ended, false);
            }
            if calm || random.below(8) > 0 {
                self.queue.drain(..window.len());
            }
        }

        fn is_replayed(&self, message: Message) -> bool {
            self.queue.contains(&(message, true))
        }

        fn replay(&mut self, message: Message) {
            self.queue.push_back((message, true));
        }

        /// The first of a subject in the lot is due.
        fn due(&mut self, subject: usize, random: &mut Random, calm: bool) {
            let first = self.lot.get(&subject).and_then(|lot| lot.front().copied());
            let Some(message) = first.filter(|_| !self.held_by.contains_key(&subject)) else { return };
            if let Some(ended) = self.send(message, random, calm) {
                self.commit(message, ended, true);
            }
        }

        fn person(&mut self, random: &mut Random) {
            let dead: Vec<Message> = self.dead.iter().copied().collect();
            let Some(message) = dead.get(random.below(dead.len())).copied() else { return };
            match random.below(3) {
                0 if !self.is_replayed(message) => self.replay(message),
                1 if !self.is_replayed(message) => {
                    self.dead.remove(&message);
                    self.discarded.insert(message);
                    if self.held_by.get(&message.0) == Some(&message) {
                        self.held_by.remove(&message.0);
                    }
                }
                2 if self.held_by.get(&message.0) == Some(&message) => {
                    self.held_by.remove(&message.0);
                    self.loose.insert(message);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn each_digest_belongs_to_the_one_strand_whose_range_it_lies_in() {
        for of in [1, 2, 3, 7, 8, 255] {
            let strands = Strand::all(of);
            for byte in 0..=u8::MAX {
                let mut digest = [0xff; 32];
                digest[0] = byte;
                let in_range = |strand: &Strand| {
                    let (from, to) = strand.digests();
                    from.as_slice() <= digest.as_slice() && digest.as_slice() < to.as_slice()
                };
                let takes: Vec<usize> = (0..strands.len()).filter(|at| in_range(&strands[*at])).collect();
                assert_eq!(takes, [Strand::of(&digest, strands.len())], "{byte} of {of}");
            }
        }
    }

    #[test]
    fn whatever_happens_no_message_overtakes_another_of_its_subject_and_none_is_lost_or_given_twice() {
        for seed in 0..3_000 {
            let (mut world, mut random) = (World::default(), Random(seed));
            let (subjects, each) = (1 + random.below(3), 6);
            for number in 0..each {
                for subject in 0..subjects {
                    world.queue.push_back(((subject, number), false));
                }
            }
            for _ in 0..random.below(200) {
                match random.below(4) {
                    0 | 1 => world.take(&mut random, false),
                    2 => world.due(random.below(subjects), &mut random, false),
                    _ => world.person(&mut random),
                }
            }
            // All is well again: what is dead is replayed, everything is sent.
            for _ in 0..100 {
                for message in world.dead.clone() {
                    if !world.is_replayed(message) {
                        world.replay(message);
                    }
                }
                world.take(&mut random, true);
                (0..subjects).for_each(|subject| world.due(subject, &mut random, true));
            }
            assert!(world.lot.values().all(VecDeque::is_empty), "seed {seed}: nothing is left behind");
            for subject in 0..subjects {
                let given: Vec<usize> = world
                    .given
                    .iter()
                    .filter(|message| message.0 == subject)
                    .map(|message| message.1)
                    .collect();
                let in_order: Vec<usize> = given
                    .iter()
                    .copied()
                    .filter(|number| !world.loose.contains(&(subject, *number)))
                    .collect();
                assert!(in_order.is_sorted(), "seed {seed}: {given:?} of subject {subject}");
                for number in 0..each {
                    let message = (subject, number);
                    let times = world.given.iter().filter(|given| **given == message).count();
                    let gone = world.discarded.contains(&message);
                    assert!(
                        times == 1 || (gone && times == 0),
                        "seed {seed}: {message:?} was given {times} times"
                    );
                }
            }
        }
    }
}
