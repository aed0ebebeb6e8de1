//! The query parameters of each route, from the document, to validate requests.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

use super::document;
use crate::http::BASE;

/// The input of a route beside its path and its headers.
#[derive(Debug)]
pub(crate) struct DocumentedQuery {
    /// The names of its query's parameters, including those of every route.
    pub(crate) parameters: Vec<&'static str>,
    /// It has parameters of its own, or a body: its handler reads these, and validates the query with them.
    pub(crate) is_read: bool,
}

/// The input of the route with this pattern; `None` for a route outside the API.
pub(crate) fn known(method: &Method, route: &str) -> Option<&'static DocumentedQuery> {
    static KNOWN: LazyLock<HashMap<&str, Vec<(Method, DocumentedQuery)>>> = LazyLock::new(|| all(document()));
    // `HEAD` is validated like `GET`.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    KNOWN.get(route)?.iter().find(|(known, _)| known == method).map(|(_, known)| known)
}

fn all(document: &'static OpenApi) -> HashMap<&'static str, Vec<(Method, DocumentedQuery)>> {
    let of_api = document.paths.paths.iter().filter(|(path, _)| path.starts_with(BASE));
    let read = |(method, operation)| (method, of(document, operation));
    of_api.map(|(path, item)| (path.as_str(), operations(item).map(read).collect())).collect()
}

fn operations(item: &'static PathItem) -> impl Iterator<Item = (Method, &'static Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::PATCH, patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn of(document: &'static OpenApi, operation: &'static Operation) -> DocumentedQuery {
    let mut known = DocumentedQuery { parameters: Vec::new(), is_read: operation.request_body.is_some() };
    for given in operation.parameters.iter().flatten() {
        let (parameter, is_shared) = match given {
            RefOr::T(parameter) => (Some(parameter), false),
            RefOr::Ref(reference) => {
                let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
                (shared(document, name), name == STRICT)
            }
        };
        if let Some(parameter) = parameter.filter(|parameter| matches!(parameter.parameter_in, ParameterIn::Query)) {
            known.parameters.push(&parameter.name);
            known.is_read |= !is_shared;
        }
    }
    known
}

/// The component of the one parameter of every route.
pub(super) const STRICT: &str = "Strict";

fn shared(document: &'static OpenApi, name: &str) -> Option<&'static Parameter> {
    match document.components.as_ref()?.parameters.get(name)? {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    }
}
