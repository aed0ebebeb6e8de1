//! Decisions as data, and requests that are cut off anywhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::conversation::{self, Conversation, Details, Opening, Origin, Post};
use crate::id::ConversationId;
use crate::machine::sim::Sim;
use crate::message::{Content, NewMessage, Sender, SenderKind};

const NOW: Millis = Millis(1_763_000_000_000);
const WORKSPACE: Address = Address([9; 10]);

fn id() -> AttachmentId {
    AttachmentId::new(NOW, Address([1; 10]))
}

fn file() -> File {
    let filename = "a.png".to_owned();
    let mime_type = "image/png".to_owned();
    File { filename, mime_type, size: 5, digest: [7; 32], storage_key: "k".to_owned() }
}

fn entity(id: AttachmentId) -> EntityKey {
    EntityKey::attachment(WORKSPACE, id.address)
}

fn nothing() -> Sim<Attachment> {
    Sim::new(entity(id()), NOW)
}

/// A file whose bytes are there.
fn complete() -> Sim<Attachment> {
    let mut sim = nothing();
    sim.run(&Command::Begin(Begin(id()))).unwrap();
    sim.run(&Command::Complete(file())).unwrap();
    sim
}

fn bind(conversation: u8, instead_of: Option<Bound>) -> Command {
    Command::Bind(Bind { conversation: Address([conversation; 10]), instead_of })
}

fn bound(conversation: u8, number: u32) -> Bound {
    Bound { conversation: Address([conversation; 10]), number }
}

fn message(conversation: u8) -> MessageId {
    MessageId::new(NOW, Address([conversation; 10]), 2)
}

fn seen(sim: &Sim<Attachment>) -> Box<State> {
    Box::new(sim.state.clone().unwrap())
}

#[test]
fn a_file_can_be_used_once_its_bytes_are_there_and_is_completed_once() {
    let mut sim = nothing();
    assert_eq!(sim.run(&Command::Complete(file())), Err(Rejection::NotFound));
    sim.run(&Command::Begin(Begin(id()))).unwrap();
    assert_eq!(sim.run(&bind(2, None)), Err(Rejection::NotFound));
    assert!(sim.state.as_ref().unwrap().ready().is_none());
    sim.run(&Command::Complete(file())).unwrap();
    assert_eq!(sim.run(&Command::Complete(file())), Err(Rejection::Exists));
    assert_eq!(sim.state.as_ref().unwrap().ready(), Some(&file()));
    let begun_again = Command::Begin(Begin(AttachmentId::new(NOW.plus(5), id().address)));
    assert!(matches!(sim.run(&begun_again), Ok(Reply::Attachment(state)) if state.id == id()));
}

#[test]
fn a_file_moves_to_another_conversation_only_once_disclaimed() {
    let mut sim = complete();
    assert_eq!(sim.run(&bind(2, None)), Ok(Reply::Bound(1)));
    assert_eq!(sim.run(&bind(2, None)), Ok(Reply::Bound(1)), "again, for whoever posts there");
    assert_eq!(sim.run(&bind(3, None)), Err(Rejection::Elsewhere(bound(2, 1))));
    assert_eq!(sim.run(&bind(3, Some(bound(2, 1)))), Ok(Reply::Bound(2)));
    assert_eq!(sim.run(&bind(4, Some(bound(2, 1)))), Err(Rejection::Elsewhere(bound(3, 2))), "that was long ago");
    assert_eq!(sim.run(&bind(3, Some(bound(3, 2)))), Ok(Reply::Bound(3)), "the same one with a new number");
}

#[test]
fn a_file_that_knows_its_message_stays_with_its_conversation() {
    let mut sim = complete();
    sim.run(&bind(2, None)).unwrap();
    let keep = Command::Keep { seen: seen(&sim), message: Some(message(2)) };
    sim.run(&keep).unwrap();
    assert_eq!(sim.state.as_ref().unwrap().check_at, None, "nobody need ask again");
    assert_eq!(sim.run(&bind(3, None)), Err(Rejection::Linked(message(2))));
    assert_eq!(sim.run(&bind(3, Some(bound(2, 1)))), Err(Rejection::Linked(message(2))));
    assert_eq!(sim.run(&bind(2, None)), Ok(Reply::Bound(1)), "a retry of its message asks again");
}

#[test]
fn an_erasure_or_keep_based_on_outdated_state_is_refused() {
    let mut sim = complete();
    let before = seen(&sim);
    sim.run(&bind(2, None)).unwrap();
    assert_eq!(sim.run(&Command::Erase(Erase { seen: before.clone() })), Err(Rejection::Changed));
    assert_eq!(sim.run(&Command::Keep { seen: before, message: None }), Err(Rejection::Changed));
    sim.run(&Command::Erase(Erase { seen: seen(&sim) })).unwrap();
    for late in [bind(2, None), Command::Mention(Address([2; 10])), Command::Complete(file())] {
        assert_eq!(sim.run(&late), Err(Rejection::NotFound));
    }
}

#[test]
fn an_erased_file_is_checked_until_its_bytes_are_deleted() {
    let mut sim = complete();
    sim.run(&Command::Erase(Erase { seen: seen(&sim) })).unwrap();
    let log = format!("{:?}", sim.log);
    assert!(!log.contains("a.png"), "{log}");
    let state = sim.state.clone().unwrap();
    assert_eq!((state.erased, state.ready(), state.check_at), (true, None, Some(NOW.plus(limits::SWEEP_AGAIN_MILLIS))));
    sim.run(&Command::Swept).unwrap();
    assert_eq!(sim.state.as_ref().unwrap().check_at, None);
}

#[test]
fn a_file_is_looked_at_after_a_day_and_later_where_a_message_is_on_its_way() {
    let mut sim = complete();
    let day = NOW.plus(limits::ORPHAN_KEPT_MILLIS);
    assert_eq!(Attachment::alarm(sim.state.as_ref().unwrap()), Some(day));
    sim.run(&bind(2, None)).unwrap();
    assert_eq!(sim.state.as_ref().unwrap().check_at, Some(day), "there is plenty of time");
    sim.now = day;
    for command in [bind(2, None), Command::Mention(Address([3; 10]))] {
        let mut sim_now = complete();
        sim_now.now = day;
        sim_now.run(&command).unwrap();
        assert_eq!(sim_now.state.unwrap().check_at, Some(day.plus(limits::LINKING_MILLIS)), "{command:?}");
    }
    let mut sim = complete();
    sim.run(&Command::Doubt).unwrap();
    assert_eq!(sim.state.as_ref().unwrap().check_at, Some(NOW.plus(limits::DOUBT_MILLIS)));
}

#[test]
fn a_doubt_changes_what_is_seen_also_where_a_look_is_due() {
    let mut sim = complete();
    sim.now = NOW.plus(limits::ORPHAN_KEPT_MILLIS - 5);
    let before = seen(&sim);
    assert!(before.is_doubted(sim.now), "a look is near, for whatever reason");
    sim.run(&Command::Doubt).unwrap();
    assert_eq!(sim.run(&Command::Keep { seen: before, message: None }), Err(Rejection::Changed));
    let after = seen(&sim);
    assert_eq!(after.check_at, Some(sim.now.plus(limits::DOUBT_MILLIS)));
    assert!(after.is_doubted(sim.now) && !after.is_doubted(sim.now.plus(limits::DOUBT_MILLIS)));
}

#[test]
fn a_mention_of_a_file_that_is_needed_is_remembered() {
    let mut sim = complete();
    sim.run(&bind(2, None)).unwrap();
    let keep = Command::Keep { seen: seen(&sim), message: Some(message(2)) };
    sim.run(&keep).unwrap();
    sim.run(&Command::Mention(Address([3; 10]))).unwrap();
    let state = sim.state.clone().unwrap();
    assert_eq!((state.mentioned.as_slice(), state.check_at), ([Address([3; 10])].as_slice(), None));
    sim.run(&Command::Doubt).unwrap();
    // Its message is gone, and the other one keeps it.
    let keep = Command::Keep { seen: seen(&sim), message: None };
    assert!(matches!(sim.run(&keep), Ok(Reply::Attachment(after)) if Some(&*after) == sim.state.as_ref()));
}

#[test]
fn a_file_that_many_conversations_mention_is_kept_for_ever() {
    let mut sim = complete();
    for n in 0..limits::MENTIONED_IN + 3 {
        let conversation = Address([u8::try_from(n).unwrap(); 10]);
        sim.run(&Command::Mention(conversation)).unwrap();
        sim.run(&Command::Mention(conversation)).unwrap();
    }
    let state = sim.state.unwrap();
    assert_eq!((state.mentioned.len(), state.check_at), (limits::MENTIONED_IN, None));
    assert!(state.is_mentioned_widely(), "and nobody is asked, whoever goes");
}

#[test]
fn a_file_about_to_be_mentioned_is_kept() {
    let mut sim = complete();
    sim.run(&bind(2, None)).unwrap();
    let keep = Command::Keep { seen: seen(&sim), message: Some(message(2)) };
    sim.run(&keep).unwrap();
    sim.run(&Command::Mention(Address([3; 10]))).unwrap();
    // Its own message is deleted, and the other one has not arrived.
    sim.run(&Command::Doubt).unwrap();
    let arrived = NOW.plus(limits::LINKING_MILLIS);
    let held = sim.run(&Command::Erase(Erase { seen: seen(&sim) })).unwrap();
    assert!(matches!(held, Reply::Attachment(state) if !state.erased && state.check_at == Some(arrived)));
    sim.now = NOW.plus(limits::LINKING_MILLIS / 2 + 1);
    let before = sim.log.len();
    sim.run(&Command::Mention(Address([3; 10]))).unwrap();
    let arrived = sim.now.plus(limits::LINKING_MILLIS);
    assert!(sim.log.len() > before && sim.state.as_ref().unwrap().held_until == Some(arrived), "it is said again");
    sim.now = sim.now.plus(1);
    let before = sim.log.len();
    sim.run(&Command::Mention(Address([3; 10]))).unwrap();
    assert_eq!(sim.log.len(), before, "but not each time");
    sim.now = arrived;
    sim.run(&Command::Erase(Erase { seen: seen(&sim) })).unwrap();
    assert!(sim.state.as_ref().unwrap().erased, "by then it would have arrived");
}

/// One request that wants to give files to a message, a step at a time; it may be cut off between any two.
#[derive(Clone, Debug)]
struct Attempt {
    conversation: u8,
    wants: Vec<usize>,
    claims: Vec<u32>,
    /// The conversation to be asked about the file that comes next.
    asking: Option<Bound>,
    /// What it was told was disclaimed.
    disclaimed: Option<Bound>,
    rebound: bool,
    over: bool,
}

/// Everything there is.
struct World {
    files: Vec<Sim<Attachment>>,
    conversations: BTreeMap<u8, Sim<Conversation>>,
    attempts: Vec<Attempt>,
}

fn conversation(n: u8) -> Sim<Conversation> {
    let id = ConversationId::new(NOW, Address([n; 10]));
    let mut sim = Sim::new(EntityKey::conversation(WORKSPACE, id.address), NOW);
    let opening = Opening { id, origin: Origin::Direct, owner: None, details: Details::default() };
    sim.run(&conversation::Command::Open(opening)).unwrap();
    sim
}

impl World {
    fn new(attempts: Vec<Attempt>) -> Self {
        let files = (0..3_u8).map(|n| {
            let id = AttachmentId::new(NOW, Address([100 + n; 10]));
            let mut sim = Sim::new(entity(id), NOW);
            sim.run(&Command::Begin(Begin(id))).unwrap();
            sim.run(&Command::Complete(file())).unwrap();
            sim
        });
        let conversations = (1..=3).map(|n| (n, conversation(n))).collect();
        Self { files: files.collect(), conversations, attempts }
    }

    fn disclaim(&mut self, file: usize, bound: Bound) -> Option<MessageId> {
        let attachment = self.files[file].entity.id;
        let command = conversation::Command::Disclaim(conversation::Disclaim { attachment, number: bound.number });
        let sim = self.conversations.get_mut(&bound.conversation.0[0]).unwrap();
        match sim.run(&command) {
            Ok(conversation::Reply::Attached(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    /// The next step of a request, as the front door takes it.
    fn step(&mut self, n: usize) {
        let mut attempt = self.attempts[n].clone();
        if attempt.over {
            return;
        }
        match attempt.wants.get(attempt.claims.len()).copied() {
            Some(file) => match attempt.asking.take() {
                Some(bound) => match self.disclaim(file, bound) {
                    Some(_) => attempt.over = true,
                    None => attempt.disclaimed = Some(bound),
                },
                None => match self.files[file].run(&bind(attempt.conversation, attempt.disclaimed.take())) {
                    Ok(Reply::Bound(number)) => attempt.claims.push(number),
                    Err(Rejection::Elsewhere(bound)) => attempt.asking = Some(bound),
                    Err(_) => attempt.over = true,
                    Ok(other) => panic!("{other:?}"),
                },
            },
            None => {
                match self.post(&attempt) {
                    // Its binding was disclaimed by somebody who asked: it binds that file anew.
                    Some(lost) if !attempt.rebound => {
                        let number = attempt.claims[lost];
                        attempt.claims.truncate(lost);
                        attempt.disclaimed = Some(bound(attempt.conversation, number));
                        attempt.rebound = true;
                    }
                    _ => attempt.over = true,
                }
            }
        }
        self.attempts[n] = attempt;
    }

    /// The place of a file that was lost.
    fn post(&mut self, attempt: &Attempt) -> Option<usize> {
        let mut content = Content::text("user", Sender { kind: SenderKind::User, id: "ana".to_owned() }, "see");
        let files = attempt.wants.iter().zip(&attempt.claims);
        let files = files.filter_map(|(file, claim)| self.files[*file].state.as_ref()?.attachment(Some(*claim)));
        content.attachments = files.collect();
        if content.attachments.len() < attempt.wants.len() {
            return None;
        }
        let message = NewMessage { content: Arc::new(content), parent: None, review_millis: None };
        let post = Post { opening: None, expected: None, messages: vec![message], turn: None };
        let sim = self.conversations.get_mut(&attempt.conversation).unwrap();
        match sim.run(&conversation::Command::Post(post)) {
            Ok(_) | Err(conversation::Rejection::AttachmentLinked(_)) => None,
            Err(conversation::Rejection::AttachmentLost(id)) => {
                attempt.wants.iter().position(|file| self.files[*file].entity.id == id.address)
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// What the alarm does: looks, and decides by what it saw.
    fn settle(&mut self, file: usize) {
        let state = self.files[file].state.clone().unwrap();
        if state.erased {
            return;
        }
        let owner = state.message.or_else(|| self.disclaim(file, state.bound?));
        let seen = Box::new(state);
        let command = match owner {
            Some(message) => Command::Keep { seen, message: Some(message) },
            None => Command::Erase(Erase { seen }),
        };
        self.files[file].run(&command).unwrap();
    }

    /// Messages that have a file.
    fn owners(&self, file: usize) -> Vec<MessageId> {
        let id = self.files[file].state.as_ref().unwrap().id;
        let records = self.conversations.values().flat_map(|sim| sim.log.iter().map(|(record, _)| record));
        let messages = records.filter_map(conversation::message_of);
        messages.filter(|message| message.content.attachments.iter().any(|file| file.id == id)).map(|m| m.id).collect()
    }
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (1..=3_u8, proptest::sample::subsequence(vec![0_usize, 1, 2], 1..=3)).prop_shuffle_wants();
    proptest::collection::vec(attempt, 1..6)
}

/// Files in any order.
trait ShuffleWants {
    fn prop_shuffle_wants(self) -> BoxedStrategy<Attempt>;
}

impl<S: Strategy<Value = (u8, Vec<usize>)> + 'static> ShuffleWants for S {
    fn prop_shuffle_wants(self) -> BoxedStrategy<Attempt> {
        let shuffled = self.prop_flat_map(|(conversation, wants)| (Just(conversation), Just(wants).prop_shuffle()));
        let attempt = |(conversation, wants)| Attempt {
            conversation,
            wants,
            claims: Vec::new(),
            asking: None,
            disclaimed: None,
            rebound: false,
            over: false,
        };
        shuffled.prop_map(attempt).boxed()
    }
}

proptest! {
    /// Steps below 8 are those of requests, the others look at a file. Whatever is not stepped to its end was cut off.
    #[test]
    fn a_file_has_one_message_at_most_whatever_dies_and_whatever_comes_late(
        attempts in attempts(),
        steps in proptest::collection::vec(0..11_usize, 0..80),
    ) {
        let count = attempts.len();
        let mut world = World::new(attempts);
        for step in steps {
            match step {
                0..8 => world.step(step % count),
                look => world.settle(look - 8),
            }
            for file in 0..3 {
                let owners = world.owners(file);
                prop_assert!(owners.len() <= 1, "file {} has {:?}", file, owners);
                let state = world.files[file].state.as_ref().unwrap();
                prop_assert!(state.message.is_none() || state.message == owners.first().copied());
                prop_assert!(!state.erased || owners.is_empty(), "what a message has is not erased");
            }
        }
    }

    /// Without anybody dying, and after all have ended, somebody who wants a file can have it unless a message has it.
    #[test]
    fn a_file_that_no_message_has_can_be_had(attempts in attempts(), steps in proptest::collection::vec(0..8_usize, 0..40)) {
        let count = attempts.len();
        let mut world = World::new(attempts);
        for step in steps {
            world.step(step % count);
        }
        for file in 0..3 {
            let before = world.owners(file);
            let last = Attempt {
                conversation: 3, wants: vec![file], claims: Vec::new(), asking: None, disclaimed: None, rebound: false, over: false,
            };
            world.attempts = vec![last];
            for _ in 0..12 {
                world.step(0);
            }
            let after = world.owners(file);
            prop_assert_eq!(after.len(), 1);
            prop_assert!(before.is_empty() || before == after);
        }
    }
}
