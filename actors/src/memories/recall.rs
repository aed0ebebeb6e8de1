//! Searching memories: by words, and by meaning if an embeddings endpoint is configured.
//!
//! A search reads and ranks all memories of its subject; there is no index that could lag. Missing vectors are computed
//! in the background, so the first search is answered by words alone.
//!
//! Unless a function says otherwise, it fails with a `StoreError` if the store, or the stored data, cannot be read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::embed::embed;
use super::rank::{by_words, joined, likeness};
use super::{Command, Memories, Memory, State, Subject, Vector};
use crate::clock::Millis;
use crate::codec;
use crate::conversation;
use crate::directory::CommandContext;
use crate::id::{EntityKey, MemoryId};
use crate::limits;
use crate::node::Node;
use crate::store::{KeyRange, Order, Scan, StoreError};
use crate::tables::{MEMORIES, VECTORS};
use crate::trace::current;

/// How long a question waits for its own vector; then it is answered by words alone.
const QUESTION_VECTOR_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the background task waits for missing vectors of memories. The endpoint's own timeout is shorter.
const MEMORY_VECTORS_TIMEOUT: Duration = Duration::from_mins(1);
/// Texts whose vectors are requested at once.
const LEARNED_AT_ONCE: usize = 64;

/// The port to an embeddings model.
pub trait Embeddings: Send + Sync + 'static {
    /// The model's name. Vectors of different models are never compared.
    fn model(&self) -> &str;

    /// The endpoint's URL, if it has one: traces contain only its host and port.
    fn url(&self) -> Option<&str> {
        None
    }

    /// A vector for each text, in order; or an error, for logs. Dropping the future cancels the call.
    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>>;
}

/// A memory, for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The fact, in words.
    pub text: String,
    /// When it got this text.
    pub at: Millis,
}

/// Up to `limit` memories of the contact or owner of a conversation, the best matches for `query` first, then the
/// newest ones.
///
/// # Errors
///
/// `StoreError` if the store, or the stored data, cannot be read. A turn continues without memories.
pub async fn recall(
    node: &Arc<Node>,
    conversation: EntityKey,
    state: &conversation::State,
    query: &str,
    limit: usize,
) -> Result<Vec<Remembered>, StoreError> {
    let Some(subject) = subject_of(state) else { return Ok(Vec::new()) };
    let entity = subject.entity(conversation.workspace);
    let all = all(node, entity, &subject).await?;
    // A long question begins with its topic, and ranking takes time in proportion to its length.
    let query: String = query.chars().take(limits::QUERY_CHARS).collect();
    let ranked = ranked(node, entity, &all, &query).await?;
    let mut found: Vec<&Memory> = ranked.into_iter().map(|(place, _)| &all[place]).take(limit).collect();
    let mut newest: Vec<&Memory> = all.iter().collect();
    newest.sort_by_key(|memory| std::cmp::Reverse(memory.at()));
    for memory in newest {
        if found.len() >= limit {
            break;
        }
        if found.iter().all(|known| known.id != memory.id) {
            found.push(memory);
        }
    }
    Ok(found.into_iter().map(|memory| Remembered { text: memory.text.clone(), at: memory.at() }).collect())
}

/// The subject of a conversation, if it has one.
#[must_use]
pub(crate) fn subject_of(state: &conversation::State) -> Option<Subject> {
    match &state.origin {
        conversation::Origin::Api { contact, .. } => Some(Subject::Contact(*contact)),
        conversation::Origin::Human { .. } | conversation::Origin::Direct => state.owner.clone().map(Subject::Owner),
    }
}

/// The memories that match `query`, the best first, each with its score: only the order has a meaning.
pub async fn search(
    node: &Arc<Node>,
    entity: EntityKey,
    subject: &Subject,
    query: &str,
    limit: usize,
) -> Result<Vec<(Memory, f32)>, StoreError> {
    let all = all(node, entity, subject).await?;
    let ranked = ranked(node, entity, &all, query).await?;
    Ok(ranked.into_iter().take(limit).map(|(place, score)| (all[place].clone(), score)).collect())
}

/// All memories of a subject, in order of creation.
pub async fn all(node: &Node, entity: EntityKey, subject: &Subject) -> Result<Vec<Memory>, StoreError> {
    let state = node.state::<Memories>(entity).await?;
    if !state.is_some_and(|state: State| state.subject == *subject && !state.erased) {
        return Ok(Vec::new());
    }
    let rows = node.rows(entity, MEMORIES, Scan::new(KeyRange::default(), Order::Asc, limits::MEMORIES * 2)).await?;
    rows.iter().map(|row| codec::decode(&row.value)).collect()
}

async fn ranked(
    node: &Arc<Node>,
    entity: EntityKey,
    all: &[Memory],
    query: &str,
) -> Result<Vec<(usize, f32)>, StoreError> {
    let mut rankings = vec![by_words(query, all.iter().map(|memory| memory.text.as_str()))];
    if let Some(embeddings) = &node.ports.embeddings
        && !all.is_empty()
    {
        let known = vectors(node, entity, embeddings.model()).await?;
        let vector = |memory: &Memory| known.get(&memory.id.number).filter(|vector| vector.of == memory.at());
        let missed: Vec<&Memory> = all.iter().filter(|memory| vector(memory).is_none()).collect();
        if !missed.is_empty() {
            let texts =
                missed.into_iter().take(LEARNED_AT_ONCE).map(|memory| (memory.id, memory.at(), memory.text.clone()));
            learn(node, entity, texts.collect());
        }
        match embed(node, &**embeddings, vec![query.to_owned()], QUESTION_VECTOR_TIMEOUT).await {
            Ok(vectors) => rankings.extend(vectors.iter().map(|question| {
                let alike = |memory| vector(memory).map_or(0.0, |vector| likeness(&vector.numbers, question));
                all.iter().map(alike).collect()
            })),
            Err(error) => tracing::warn!(%error, "could not embed a question; it is answered by words"),
        }
    }
    Ok(joined(&rankings))
}

async fn vectors(node: &Node, entity: EntityKey, model: &str) -> Result<HashMap<u64, Vector>, StoreError> {
    let rows = node.rows(entity, VECTORS, Scan::new(KeyRange::default(), Order::Asc, limits::MEMORIES * 2)).await?;
    let mut vectors = HashMap::with_capacity(rows.len());
    for row in rows {
        let vector: Vector = codec::decode(&row.value)?;
        let number = row.key.as_ref().try_into().map(u64::from_be_bytes);
        if let Some(number) = number.ok().filter(|_| vector.model == model) {
            vectors.insert(number, vector);
        }
    }
    Ok(vectors)
}

/// Requests vectors and stores them, in a task of its own. Vectors not learned now are missed, and learned, again.
fn learn(node: &Arc<Node>, entity: EntityKey, texts: Vec<(MemoryId, Millis, String)>) {
    let Some(embeddings) = node.ports.embeddings.clone() else { return };
    // One at a time in the node: it is never urgent.
    let Ok(permit) = Arc::clone(&node.drawing.learning).try_acquire_owned() else { return };
    let node = Arc::clone(node);
    let learning = async move {
        let _permit = permit;
        let batch = texts.iter().map(|(_, _, text)| text.clone()).collect();
        let embedding = embed(&node, &*embeddings, batch, MEMORY_VECTORS_TIMEOUT);
        let stopping = node.stopping.clone();
        let vectors = match stopping.run_until_cancelled(embedding).await {
            Some(Ok(vectors)) => vectors,
            Some(Err(error)) => {
                return tracing::warn!(%error, "could not embed memories; retried when needed");
            }
            None => return,
        };
        let model = embeddings.model().to_owned();
        let learned = texts.into_iter().zip(vectors);
        let learned = learned.map(|((id, of, _), numbers)| (id, Vector { model: model.clone(), of, numbers }));
        let command = Command::Learn(learned.collect());
        if let Err(refusal) = node.memories(entity, command, CommandContext::default()).await {
            tracing::warn!(?entity, %refusal, "could not store vectors; recomputed when needed");
        }
    };
    tokio::spawn(current::within(current::get(), learning));
}
