//! Cases about alarms.

use super::*;
use crate::store::{AlarmChange, Due, DuePage};

/// The alarms of a page that lacks nothing: a store that can be read reads all.
fn alarms_of(page: DuePage) -> Vec<Due> {
    assert!(page.missing.is_none(), "{page:?}");
    page.alarms
}

/// Every due alarm of this workspace, read in pages of two.
pub(super) async fn all_due<S: Store>(place: &Place<S>, upto: Millis) -> Vec<(u64, EntityKey)> {
    let mut after = None;
    let mut found = Vec::new();
    loop {
        let page = alarms_of(place.store.due(after, upto, 2).await.expect("a read"));
        assert!(page.len() <= 2);
        let all = after.iter().chain(&page).copied().collect::<Vec<Due>>();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "ascending and after the cursor: {all:?}");
        let Some(last) = page.last() else { return found };
        after = Some(*last);
        found.extend(
            page.iter().filter(|due| due.entity.workspace == place.workspace).map(|due| (due.at.0, due.entity)),
        );
    }
}

/// Reads until exactly these alarms are due: an alarm may still be seen at its former time.
async fn only_due<S: Store>(place: &Place<S>, upto: Millis, expected: &[(u64, EntityKey)]) {
    let mut found = all_due(place, upto).await;
    for _ in 0..1_000 {
        if found == expected {
            return;
        }
        tokio::task::yield_now().await;
        found = all_due(place, upto).await;
    }
    assert_eq!(found, expected);
}

async fn set<S: Store>(place: &Place<S>, n: u64, at: u64) -> Head {
    let mut commit = events(place.entity(n), None, &["alarm"]);
    commit.alarm = Some(AlarmChange { previous: None, next: Some(Millis(at)) });
    place.put(commit).await
}

/// An entity has one alarm: moving it leaves none at its old time.
pub async fn an_alarm_is_set_moved_and_cleared<S: Store>(place: &Place<S>) {
    let entity = place.entity(1);
    let mut head = None;
    let mut previous = None;
    for next in [Some(500), Some(300), Some(700), Some(700), None, Some(200), None] {
        let mut commit = events(entity, head, &["move"]);
        let next = next.map(Millis);
        commit.alarm = Some(AlarmChange { previous, next });
        head = Some(place.put(commit).await);
        previous = next;
        let expected: Vec<_> = next.iter().map(|at| (at.0, entity)).collect();
        only_due(place, Millis(10_000), &expected).await;
        head = Some(place.put(events(entity, head, &["a commit that does not touch it"])).await);
        assert_eq!(all_due(place, Millis(10_000)).await, expected);
        assert_eq!(place.load(entity).await.alarm, next);
    }
}

/// Earliest first, and none before it is due.
pub async fn alarms_come_in_order_of_time<S: Store>(place: &Place<S>) {
    for (n, at) in [(1, 400), (2, 100), (3, 65_536), (4, 255), (5, 256)] {
        set(place, n, at).await;
    }
    let due = |upto| async move { all_due(place, Millis(upto)).await.iter().map(|(at, _)| *at).collect::<Vec<_>>() };
    assert_eq!(due(99).await, Vec::<u64>::new());
    assert_eq!(due(100).await, [100]);
    assert_eq!(due(256).await, [100, 255, 256]);
    assert_eq!(due(u64::MAX).await, [100, 255, 256, 400, 65_536]);
}

/// Many alarms are due at one time and are cleared while they are read: a cursor at a cleared alarm still reads on.
pub async fn reading_on_behind_a_due_alarm_skips_none<S: Store>(place: &Place<S>) {
    let mut heads = Vec::new();
    for n in 1..=9 {
        heads.push((place.entity(n), set(place, n, 600 + n / 4).await));
    }
    let all = all_due(place, Millis(1_000)).await;
    assert_eq!(all.len(), 9);
    let mut expected: Vec<_> = (1..=9).map(|n| (600 + n / 4, place.entity(n))).collect();
    expected.sort();
    assert_eq!(all, expected);
    let (at, fired) = all[3];
    let head = heads.iter().find(|(entity, _)| *entity == fired).map(|(_, head)| *head);
    let mut clear = events(fired, head, &["fired"]);
    clear.alarm = Some(AlarmChange { previous: Some(Millis(at)), next: None });
    place.put(clear).await;
    let cursor = Due { at: Millis(at), entity: fired };
    let rest = alarms_of(place.store.due(Some(cursor), Millis(1_000), 1_000).await.expect("a read"));
    let rest: Vec<_> = rest.iter().filter(|due| due.entity.workspace == place.workspace).collect();
    assert_eq!(rest.iter().map(|due| (due.at.0, due.entity)).collect::<Vec<_>>(), &all[4..]);
}

/// An activation learns its alarm without reading the index.
pub async fn an_alarm_is_loaded_with_its_entity<S: Store>(place: &Place<S>) {
    let head = set(place, 1, 900).await;
    assert_eq!(place.load(place.entity(1)).await.alarm, Some(Millis(900)));
    let mut with_state = on(place.entity(1), Some(head), "state");
    with_state.state = Some(bytes("state"));
    place.put(with_state).await;
    assert_eq!(place.load(place.entity(1)).await.alarm, Some(Millis(900)));
    place.put(events(place.entity(2), None, &["none"])).await;
    assert_eq!(place.load(place.entity(2)).await.alarm, None);
}
