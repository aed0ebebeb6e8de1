//! Cases about idempotency keys, keyed rows and views.

use super::*;
use crate::store::Scan;

const ALL: KeyRange = KeyRange { after: None, before: None };

async fn rows<S: Store>(
    place: &Place<S>,
    entity: EntityKey,
    table: Table,
    range: KeyRange,
    order: Order,
    limit: usize,
) -> Vec<Bytes> {
    let rows = place.store.rows(entity, table, Scan::new(range, order, limit)).await.expect("a read");
    rows.into_iter().map(|row| row.key).collect()
}

/// Ranges of the keys a, b, ba, c, d, with the keys that each must contain.
fn stretches() -> Vec<(KeyRange, Vec<&'static str>)> {
    vec![
        (range(None, None), vec!["a", "b", "ba", "c", "d"]),
        (range(Some("b"), None), vec!["ba", "c", "d"]),
        (range(None, Some("c")), vec!["a", "b", "ba"]),
        (range(Some("a"), Some("d")), vec!["b", "ba", "c"]),
        (range(Some("bb"), Some("bz")), vec![]),
        (range(Some("c"), Some("c")), vec![]),
        (range(Some("d"), Some("a")), vec![]),
        (range(Some("zz"), None), vec![]),
        (range(Some(""), None), vec!["a", "b", "ba", "c", "d"]),
    ]
}

/// A key is found after its commit, in its entity and nowhere else.
pub async fn keys_are_found_in_their_entity_only<S: Store>(place: &Place<S>) {
    let here = place.entity(1);
    let there = place.entity(2);
    let mut commit = events(here, None, &["a", "b", "c"]);
    commit.keys = vec![(key(1), key_row(1, 1)), (key(2), key_row(2, 3))];
    let head = place.put(commit).await;
    place.put(events(there, None, &["x"])).await;
    let mut more = events(here, Some(head), &["d"]);
    more.keys = vec![(key(3), key_row(4, 4))];
    place.put(more).await;
    for (name, found) in [(1, Some(key_row(1, 1))), (2, Some(key_row(2, 3))), (3, Some(key_row(4, 4))), (4, None)] {
        assert_eq!(place.store.find_key(here, key(name)).await.expect("a read"), found);
        assert_eq!(place.store.find_key(there, key(name)).await.expect("a read"), None);
    }
}

/// A row is put, overwritten, deleted, and put again.
pub async fn rows_are_put_overwritten_and_deleted<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut head = None;
    for (n, value) in [Some("first"), Some("second"), None, Some(""), None].into_iter().enumerate() {
        let mut commit = on(entity, head, &format!("{n}"));
        commit.rows = vec![row(Table(3), "k", value), row(Table(3), "other", Some("stays"))];
        head = Some(place.put(commit).await);
        let read = place.store.row(entity, Table(3), bytes("k")).await.expect("a read");
        assert_eq!(read, value.map(bytes));
        let listed = place.store.rows(entity, Table(3), Scan::new(ALL, Order::Asc, 10)).await.expect("a read");
        assert_eq!(listed.len(), 1 + usize::from(value.is_some()));
        assert_eq!(listed.last().expect("a row").value, "stays");
    }
}

/// Both ends are exclusive; a limit keeps the first rows in the requested order.
pub async fn rows_are_listed_between_two_keys_in_both_orders<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut commit = on(entity, None, "rows");
    commit.rows = ["d", "ba", "a", "c", "b"].iter().map(|key| row(Table(1), key, Some("v"))).collect();
    place.put(commit).await;
    for (range, expected) in stretches() {
        for limit in [0, 1, 2, 100] {
            let ascending: Vec<_> = expected.iter().take(limit).copied().collect();
            let descending: Vec<_> = expected.iter().rev().take(limit).copied().collect();
            assert_eq!(rows(place, entity, Table(1), range.clone(), Order::Asc, limit).await, ascending, "{range:?}");
            assert_eq!(rows(place, entity, Table(1), range.clone(), Order::Desc, limit).await, descending, "{range:?}");
        }
    }
}

/// Writes of one commit are applied in order.
pub async fn the_last_write_of_a_row_in_a_commit_wins<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut commit = on(entity, None, "rows");
    commit.rows = vec![
        row(Table(1), "put", None),
        row(Table(1), "put", Some("old")),
        row(Table(1), "gone", Some("x")),
        row(Table(1), "put", Some("new")),
        row(Table(1), "gone", None),
    ];
    place.put(commit).await;
    assert_eq!(place.store.row(entity, Table(1), bytes("put")).await.expect("a read"), Some(bytes("new")));
    assert_eq!(place.store.row(entity, Table(1), bytes("gone")).await.expect("a read"), None);
}

/// The same key in two tables is two rows.
pub async fn tables_do_not_mix<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut commit = on(entity, None, "rows");
    commit.rows = [0, 1, 2, 255].iter().map(|n| row(Table(*n), "k", Some(&n.to_string()))).collect();
    place.put(commit).await;
    for n in [0, 1, 2, 255] {
        assert_eq!(place.store.row(entity, Table(n), bytes("k")).await.expect("a read"), Some(bytes(&n.to_string())));
        assert_eq!(rows(place, entity, Table(n), ALL, Order::Desc, 10).await, ["k"]);
    }
    assert_eq!(rows(place, entity, Table(3), ALL, Order::Asc, 10).await, Vec::<Bytes>::new());
}

/// Like rows, but of the workspace: an entity may replace an entry that another one has put.
pub async fn view_entries_are_put_overwritten_and_deleted<S: Store>(place: &Place<S>) {
    let mut first = on(place.entity(1), None, "first");
    first.views = vec![entry(View(1), "k", Some("one")), entry(View(1), "m", Some("stays"))];
    let head = place.put(first).await;
    let mut second = on(place.entity(2), None, "second");
    second.views = vec![entry(View(1), "k", Some("two"))];
    place.put(second).await;
    let listed = place.store.view(place.workspace, View(1), Scan::new(ALL, Order::Asc, 10)).await.expect("a read");
    assert_eq!(listed[0].value, "two");
    let mut third = on(place.entity(1), Some(head), "third");
    third.views = vec![entry(View(1), "k", None)];
    place.put(third).await;
    assert_eq!(place.view(place.workspace, View(1), ALL, Order::Asc, 10).await, ["m"]);
}

/// Like rows.
pub async fn view_entries_are_listed_between_two_keys_in_both_orders<S: Store>(place: &Place<S>) {
    for (n, key) in ["d", "ba", "a", "c", "b"].iter().enumerate() {
        let mut commit = on(place.entity(n as u64), None, "entry");
        commit.views = vec![entry(View(2), key, Some("v")), entry(View(3), key, Some("other"))];
        place.put(commit).await;
    }
    for (range, expected) in stretches() {
        for limit in [0, 1, 2, 100] {
            let ascending: Vec<_> = expected.iter().take(limit).copied().collect();
            let descending: Vec<_> = expected.iter().rev().take(limit).copied().collect();
            let read = async |order| place.view(place.workspace, View(2), range.clone(), order, limit).await;
            assert_eq!(read(Order::Asc).await, ascending, "{range:?}");
            assert_eq!(read(Order::Desc).await, descending, "{range:?}");
        }
    }
}

/// The same view of another workspace is another list.
pub async fn workspaces_do_not_see_each_other<S: Store>(place: &Place<S>) {
    let here = place.entity(1);
    let there = EntityKey { workspace: place.elsewhere(), ..here };
    for (entity, name) in [(here, "here"), (there, "there")] {
        let mut commit = events(entity, None, &[name]);
        commit.keys = vec![(key(if name == "here" { 1 } else { 2 }), key_row(1, 1))];
        commit.rows = vec![row(Table(1), name, Some(name))];
        commit.views = vec![entry(View(1), name, Some(name))];
        commit.state = (name == "there").then(|| bytes(name));
        place.put(commit).await;
    }
    assert_eq!(place.view(place.workspace, View(1), ALL, Order::Asc, 10).await, ["here"]);
    assert_eq!(place.view(place.elsewhere(), View(1), ALL, Order::Desc, 10).await, ["there"]);
    assert_eq!(rows(place, here, Table(1), ALL, Order::Desc, 10).await, ["here"]);
    assert_eq!(rows(place, there, Table(1), ALL, Order::Asc, 10).await, ["there"]);
    assert_eq!(place.store.find_key(here, key(2)).await.expect("a read"), None);
    assert_eq!(place.load(here).await.state, None);
    assert_eq!(place.load(here).await.tail[0].payload, "here");
}

/// Entities whose keys are neighbours in any order share nothing, whatever their kind.
pub async fn entities_do_not_see_each_other<S: Store>(place: &Place<S>) {
    let one = place.entity(1);
    let low = EntityKey { id: Address([0; 10]), ..one };
    let high = EntityKey { id: Address([0xff; 10]), ..one };
    let contact = EntityKey::contact(one.workspace, one.id);
    let all = [one, low, high, contact, EntityKey::workspace(one.workspace)];
    for (n, entity) in all.into_iter().enumerate() {
        let mut commit = events(entity, None, &[&format!("of {n}")]);
        commit.rows = vec![row(Table(1), &format!("row of {n}"), Some("v"))];
        place.put(commit).await;
    }
    for (n, entity) in all.into_iter().enumerate() {
        for order in [Order::Asc, Order::Desc] {
            let log = place.log(entity, order).await;
            assert_eq!((log.len(), &log[0].payload[..]), (1, format!("of {n}").as_bytes()));
            assert_eq!(rows(place, entity, Table(1), ALL, order, 10).await, [format!("row of {n}")]);
        }
        assert_eq!(place.load(entity).await.tail.len(), 1);
    }
}
