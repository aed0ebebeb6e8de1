//! Cases about listing the content of a store.

use super::*;
use crate::store::inventory::Inventory;

/// The number of commits, each with a key, a row and a list entry: more than any bucket or page in these cases holds.
const COMMITS: u64 = 11;
const ITEMS_PER_PAGE: usize = 4;

/// Runs the cases of [`Inventory`] against a store, as [`run`] runs those of `Store`.
pub async fn run_inventory<S: Inventory, F: AsyncFn() -> S>(make: F, salt: u64) {
    let place = Place::new(make().await, "inventory", salt);
    Box::pin(every_entity_is_listed_once(&place)).await;
    Box::pin(keys_tables_and_views_are_listed_however_old(&place)).await;
}

/// The listing comes in pages, and may contain other entities.
async fn every_entity_is_listed_once<S: Inventory>(place: &Place<S>) {
    let mut expected: Vec<EntityKey> = (100..100 + COMMITS).map(|n| place.entity(n)).collect();
    for entity in &expected {
        let head = place.put(events(*entity, None, &["one"])).await;
        place.put(events(*entity, Some(head), &["two"])).await;
    }
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = place.store.entities(after, ITEMS_PER_PAGE).await.expect("a read");
        found.extend(page.iter().copied().filter(|entity| expected.contains(entity)));
        after = page.last().copied();
        if page.len() < ITEMS_PER_PAGE {
            break;
        }
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// The listing covers the first commits as well as the last.
async fn keys_tables_and_views_are_listed_however_old<S: Inventory>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut head = None;
    for n in 0..COMMITS {
        let mut commit = events(entity, head, &[&format!("event {n}")]);
        let number = u8::try_from(n).expect("a small number");
        commit.keys = vec![(key(number), key_row(n + 1, n + 1))];
        commit.rows = vec![row(Table(number * 5), "k", Some("v"))];
        commit.views = vec![entry(View(number * 5), "k", Some("v"))];
        head = Some(place.put(commit).await);
    }
    let numbers = || (0..COMMITS).map(|n| u8::try_from(n).expect("a small number"));
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let page = place.store.keys(entity, after, ITEMS_PER_PAGE).await.expect("a read");
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        keys.extend(page);
    }
    let mut expected: Vec<_> = numbers().map(|n| (key(n), key_row(u64::from(n) + 1, u64::from(n) + 1))).collect();
    expected.sort_by_key(|(hash, _)| *hash);
    assert_eq!(keys, expected);
    let tables = place.store.tables(entity).await.expect("a read");
    assert_eq!(tables, numbers().map(|n| Table(n * 5)).collect::<Vec<_>>());
    let views = place.store.views(place.workspace).await.expect("a read");
    assert_eq!(views, numbers().map(|n| View(n * 5)).collect::<Vec<_>>());
    let nobody = place.entity(2);
    assert!(place.store.keys(nobody, None, ITEMS_PER_PAGE).await.expect("a read").is_empty());
    assert!(place.store.tables(nobody).await.expect("a read").is_empty());
    assert!(place.store.views(place.elsewhere()).await.expect("a read").is_empty());
}
