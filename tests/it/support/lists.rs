//! Reading lists page by page.

use serde_json::{Value, json};

use super::TestApp;

/// The text of a JSON string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The ids on a page of a list.
pub(crate) fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|thing| thing["id"].as_str().unwrap().to_owned()).collect()
}

/// An item without one of its members, to compare items of lists with other answers.
pub(crate) fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

impl TestApp {
    /// The pages of a list, by following their links.
    pub(crate) async fn pages(&self, list: impl Into<String>) -> Vec<Value> {
        let mut pages = Vec::new();
        let mut path = list.into();
        while !path.is_empty() {
            let answer = self.get(&path).await;
            path = answer.header("link").split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            let page = answer.expect(200);
            assert_eq!(page["hasMore"], json!(!path.is_empty()));
            pages.push(page);
        }
        pages
    }

    /// The ids of a list, from all its pages.
    pub(crate) async fn ids(&self, list: impl Into<String>) -> Vec<String> {
        self.pages(list).await.iter().flat_map(ids).collect()
    }
}
