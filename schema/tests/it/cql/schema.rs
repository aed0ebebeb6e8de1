//! Migrations on a real server.

use std::collections::BTreeSet;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::Row;

use super::faults::FaultyWay;
use super::*;
use ::schema::cql::{MIGRATIONS, MigrateError, OpenError};

/// The statements of a file, comments removed.
fn statements(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
    lines.join("\n").split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

async fn session(contact: &Contact) -> Session {
    SessionBuilder::new().known_nodes(&contact.nodes).build().await.unwrap()
}

async fn drop_keyspace(session: &Session, keyspace: &str) {
    session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {keyspace}"), ()).await.unwrap();
}

/// Everything that the server says of a keyspace's tables, except the keyspace's name and the tables' ids.
async fn described(session: &Session, keyspace: &str) -> BTreeSet<String> {
    let mut described = BTreeSet::new();
    for table in ["columns", "tables", "indexes"] {
        let text = format!("SELECT * FROM system_schema.{table} WHERE keyspace_name = '{keyspace}'");
        let rows = session.query_unpaged(text, ()).await.unwrap().into_rows_result().unwrap();
        let names: Vec<_> = rows.column_specs().iter().map(|spec| spec.name().to_owned()).collect();
        for row in rows.rows::<Row>().unwrap() {
            let columns = names.iter().zip(row.unwrap().columns);
            let told: Vec<_> = columns.filter(|(name, _)| !["keyspace_name", "id"].contains(&name.as_str())).collect();
            described.insert(format!("{table} {told:?}"));
        }
    }
    described
}

#[tokio::test(flavor = "multi_thread")]
async fn the_current_schema_is_the_sum_of_the_migrations() {
    let sum = "cql_sum";
    let current = "cql_current";
    let Some(contact) = contact(sum) else { return };
    let session = session(&contact).await;
    for keyspace in [sum, current] {
        drop_keyspace(&session, keyspace).await;
    }
    migrate(&contact, None).await.unwrap();
    let create =
        format!("CREATE KEYSPACE {current} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}");
    session.query_unpaged(create, ()).await.unwrap();
    session.use_keyspace(current, true).await.unwrap();
    for statement in statements(include_str!("../../../current.cql")) {
        session.query_unpaged(statement, ()).await.unwrap();
    }
    assert_eq!(described(&session, sum).await, described(&session, current).await);
    for keyspace in [sum, current] {
        drop_keyspace(&session, keyspace).await;
    }
}

async fn refused(contact: &Contact) -> MigrateError {
    let opened = CqlStore::open(Options::new(contact.clone(), Arc::new(SystemClock))).await;
    match opened {
        Err(OpenError::Schema(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Missing, out of date, newer or altered.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_keyspace_is_refused_by_name() {
    let keyspace = "cql_refused";
    let Some(contact) = contact(keyspace) else { return };
    let session = session(&contact).await;
    drop_keyspace(&session, keyspace).await;
    assert!(matches!(refused(&contact).await, MigrateError::NoKeyspace(name) if name == keyspace));
    let applied = migrate(&contact, None).await.unwrap();
    assert_eq!(applied.len(), MIGRATIONS.len());
    assert_eq!(migrate(&contact, None).await.unwrap(), [""; 0], "once");
    let newest = MIGRATIONS.last().unwrap();
    let change = async |text: String| session.query_unpaged(text, ()).await.map(drop).unwrap();

    let later = newest.number + 1;
    change(format!(
        "INSERT INTO {keyspace}.migration (id, number, name, checksum) VALUES ('schema', {later}, 'later', 'x')"
    ))
    .await;
    assert!(matches!(refused(&contact).await, MigrateError::Newer { found, .. } if found == "later"));
    change(format!("DELETE FROM {keyspace}.migration WHERE id = 'schema' AND number = {later}")).await;

    change(format!(
        "UPDATE {keyspace}.migration SET checksum = 'x' WHERE id = 'schema' AND number = {}",
        newest.number
    ))
    .await;
    assert!(matches!(refused(&contact).await, MigrateError::Altered { name, .. } if name == newest.name));

    change(format!("DELETE FROM {keyspace}.migration WHERE id = 'schema' AND number = {}", newest.number)).await;
    assert!(matches!(refused(&contact).await, MigrateError::OutOfDate { pending, .. } if pending == [newest.name]));
    assert_eq!(migrate(&contact, None).await.unwrap(), [newest.name], "what was half done is done again");
    drop_keyspace(&session, keyspace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_several_concurrent_migrations_applies_each_step() {
    let keyspace = "cql_at_once";
    let Some(contact) = contact(keyspace) else { return };
    let session = session(&contact).await;
    drop_keyspace(&session, keyspace).await;
    let all = futures_util::future::join_all((0..3).map(|_| migrate(&contact, None))).await;
    let done: Vec<_> = all.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(done.len(), MIGRATIONS.len(), "{done:?}");
    drop_keyspace(&session, keyspace).await;
}

/// A process that has lost it changes nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn the_migration_lock_is_renewed_before_each_statement() {
    let keyspace = "cql_lock_lost";
    let Some(contact) = contact(keyspace) else { return };
    let session = session(&contact).await;
    drop_keyspace(&session, keyspace).await;
    let mut way = FaultyWay::to(&contact.nodes[0]).await;
    let through = Contact { nodes: vec![way.address.clone()], ..contact.clone() };
    // While one of these statements is in flight, the test may change the lock.
    let mut begun = way.slow("CREATE TABLE IF NOT EXISTS entity_");
    let migrating = tokio::spawn(async move { migrate(&through, None).await });
    let held = async || {
        let text = format!("SELECT owner, TTL(owner) FROM {keyspace}.migration_lock WHERE id = 'schema'");
        let rows = session.query_unpaged(text, ()).await.unwrap().into_rows_result().unwrap();
        rows.single_row::<(String, i32)>().unwrap()
    };
    let hold = async |owner: &str| {
        let set = format!("USING TTL 100 SET owner = '{owner}' WHERE id = 'schema' IF EXISTS");
        session.query_unpaged(format!("UPDATE {keyspace}.migration_lock {set}"), ()).await.unwrap();
    };
    begun().await;
    hold(&held().await.0).await;
    assert!(held().await.1 <= 100);
    begun().await;
    let (_, left) = held().await;
    assert!(left > 100, "{left} seconds are left");
    hold("another").await;
    let lost = migrating.await.unwrap().unwrap_err();
    let name = MIGRATIONS[0].name;
    assert!(matches!(&lost, MigrateError::LockLost { migration, .. } if *migration == name), "{lost}");
    let described = described(&session, keyspace).await;
    let has = |table: &str| described.iter().any(|told| told.contains(&format!("\"{table}\"")));
    assert!(has("entity_key") && !has("entity_row"), "{described:?}");
    assert_eq!(held().await.0, "another", "it gives up no lock but its own");
    drop_keyspace(&session, keyspace).await;
}
