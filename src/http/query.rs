//! The query of a request, decoded once.
//!
//! A route's known parameters are those in the OpenAPI document (`src/openapi/known.rs`). Others are reported to the
//! client like unknown members of a body, so that a misspelt filter is noticed.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::context::{RequestContext, RequestInfo};
use crate::json::path::Path;
use crate::openapi::known;
use crate::problem::{Fault, Problem};

/// A request's query parameters, decoded like forms (`+` is a space); each name at most once.
///
/// Rejected with 400 `invalid_query` if a name comes twice or a percent-encoding is broken or not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
    /// The parameters of its route; `None` if no route is known, or the query is empty.
    known: Option<&'static [&'static str]>,
}

/// The most parameters of a request, far more than any has: each is searched among the earlier ones.
const MAX_PARAMETERS: usize = 1_000;

impl Query {
    /// Reads the part of a target after `?`.
    ///
    /// # Errors
    /// 400 `invalid_query` with one fault per unreadable parameter.
    pub fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut faults = Vec::new();
        let all = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for (nth, pair) in all.enumerate() {
            if nth == MAX_PARAMETERS {
                faults.push(Fault::new(
                    "",
                    "invalid_query",
                    format!("a query may have at most {MAX_PARAMETERS} parameters"),
                ));
                break;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(decoded), Some(value)) = (decode(name), decode(value)) else {
                let name = decode(name).unwrap_or_else(|| name.to_owned());
                let message = format!("{name} is not percent-encoded UTF-8");
                faults.push(Fault::new(pointer(&name), "invalid_query", message));
                continue;
            };
            if pairs.iter().any(|(known, _)| *known == decoded) {
                let message = format!("duplicate parameter {decoded}");
                faults.push(Fault::new(pointer(&decoded), "invalid_query", message));
            } else {
                pairs.push((decoded, value));
            }
        }
        if faults.is_empty() { Ok(Self { pairs, known: None }) } else { Err(Problem::invalid(faults)) }
    }

    /// The query of this request, with the parameters of its route.
    ///
    /// # Errors
    /// As [`Query::parse`].
    pub fn of(request: &RequestInfo) -> Result<Self, Problem> {
        let Some(raw) = request.uri.query() else { return Ok(Self::default()) };
        let route = request.route.as_ref().and_then(|route| known(&request.method, route.as_str()));
        Ok(Self { known: route.map(|route| route.parameters.as_slice()), ..Self::parse(Some(raw))? })
    }

    /// The names unknown to its route, in their order.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        let known = self.known;
        self.iter().map(|(name, _)| name).filter(move |name| known.is_some_and(|known| !known.contains(name)))
    }

    /// Whether unknown members and parameters are faults: `?strict=true`. Any word but `false` and `0` counts as yes.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.get("strict").is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// The faults of names unknown to its route; none, unless it is strict.
    #[must_use]
    pub fn unknown_faults(&self) -> Vec<Fault> {
        let fault = |name| Fault::new(pointer(name), "unknown_field", format!("unknown parameter {name:?}"));
        if self.is_strict() { self.unknown().map(fault).collect() } else { Vec::new() }
    }

    /// Checks the query of a route without other faults of the query.
    ///
    /// # Errors
    /// 400 `unknown_field`.
    pub fn check(&self) -> Result<(), Problem> {
        let unknown_faults = self.unknown_faults();
        if unknown_faults.is_empty() { Ok(()) } else { Err(Problem::invalid(unknown_faults)) }
    }

    /// The value of `name`; empty if it came without one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let is_known = self.known.is_none_or(|known| known.contains(&name));
        debug_assert!(is_known, "{name} is read, but the route's document does not list it");
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name` if it is not empty: an empty filter is no filter.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The meaning of the value given as `name`, by `choices`; `None` if there is none, or an empty one.
    ///
    /// # Errors
    /// 400 `invalid_enum` for a value that is not among `choices`.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(given) = self.given(name) else { return Ok(None) };
        if let Some((_, meaning)) = choices.iter().find(|(choice, _)| *choice == given) {
            return Ok(Some(*meaning));
        }
        let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
        let message = format!("must be one of {}", names.join(", "));
        Err(Problem::fault(pointer(name), "invalid_enum", message))
    }

    /// `true` or `false`; `None` if there is none, or an empty one.
    ///
    /// # Errors
    /// 400 `invalid_type` for anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::fault(pointer(name), "invalid_type", "must be true or false")),
        }
    }

    /// Every name and value, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only in a router that was built without the layer.
        match parts.extensions.get::<RequestContext>() {
            Some(context) => Self::of(context),
            None => Self::parse(parts.uri.query()),
        }
    }
}

/// Checks the query of a route whose handler reads neither query nor body. The handler of another route checks its own
/// query, and reports all faults at once.
///
/// # Errors
/// 400 `invalid_query` or `unknown_field`.
pub(super) fn check_unread_query(request: &RequestInfo) -> Result<(), Problem> {
    // Almost no such request has a query.
    if request.uri.query().is_none() {
        return Ok(());
    }
    let route = request.route.as_ref().and_then(|route| known(&request.method, route.as_str()));
    match route {
        Some(route) if !route.is_read => Query::of(request)?.check(),
        Some(_) | None => Ok(()),
    }
}

/// The pointer for a fault of a parameter or header with this name: a JSON Pointer, as if the request's head were one
/// object with its body's members.
pub(super) fn pointer(name: &str) -> String {
    Path::ROOT.member(name)
}

/// A text without its percent-encoding and with spaces for `+`; `None` if it is broken or not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (*first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let value = char::from(*high).to_digit(16)? << 4 | char::from(*low).to_digit(16)?;
                out.push(u8::try_from(value).ok()?);
                after
            }
            (b'%', _) => return None,
            (b'+', _) => {
                out.push(b' ');
                tail
            }
            (byte, _) => {
                out.push(byte);
                tail
            }
        };
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_as_forms_are() {
        let query = Query::parse(Some("search=a+b%20%C3%A9&&flag&empty=&eq=a=b")).unwrap();
        assert_eq!(query.iter().collect::<Vec<_>>(), [("search", "a b é"), ("flag", ""), ("empty", ""), ("eq", "a=b")]);
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("other"), None);
        assert_eq!(Query::parse(None).unwrap(), Query::default());
    }

    #[test]
    fn a_parameter_that_comes_twice_is_refused_by_name() {
        let problem = Query::parse(Some("limit=1&order=asc&%6cimit=2")).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_query"));
        assert_eq!(problem.faults.len(), 1);
        assert_eq!(problem.faults[0].pointer, "/limit");
    }

    #[test]
    fn more_parameters_than_any_request_has_are_not_read() {
        let many = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>().join("&");
        assert!(Query::parse(Some(&many(MAX_PARAMETERS))).is_ok());
        let problem = Query::parse(Some(&many(MAX_PARAMETERS + 1))).unwrap_err();
        assert_eq!((problem.code, problem.faults.len()), ("invalid_query", 1));
    }

    #[test]
    fn a_word_outside_the_list_is_refused_with_the_list() {
        let of = |query| Query::parse(Some(query)).unwrap().choice("status", &[("open", 1), ("closed", 2)]);
        assert_eq!(of("status=closed").unwrap(), Some(2));
        assert_eq!((of("status=").unwrap(), of("").unwrap()), (None, None));
        let problem = of("status=Open").unwrap_err();
        assert_eq!((problem.code, problem.detail.as_str()), ("invalid_enum", "must be one of open, closed"));
    }

    #[test]
    fn a_boolean_is_true_or_false_and_anything_else_is_of_another_type() {
        let of = |query| Query::parse(Some(query)).unwrap().boolean("live");
        assert_eq!((of("live=true").unwrap(), of("live=false").unwrap()), (Some(true), Some(false)));
        assert_eq!((of("live=").unwrap(), of("").unwrap()), (None, None));
        for other in ["live=maybe", "live=1", "live=True"] {
            let problem = of(other).unwrap_err();
            assert_eq!((problem.code, problem.faults[0].pointer.as_str()), ("invalid_type", "/live"), "{other}");
        }
    }

    #[test]
    fn every_parameter_that_is_not_percent_encoded_utf8_is_refused() {
        let problem = Query::parse(Some("a=%ff&b=%4&c=%zz&d=ok&%ff=1")).unwrap_err();
        let pointers: Vec<_> = problem.faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a", "/b", "/c", "/%ff"]);
        let problem = Query::parse(Some("a/b~c=%zz")).unwrap_err();
        assert_eq!(problem.faults[0].pointer, "/a~1b~0c", "a name is a step of a JSON Pointer");
        assert!(problem.faults.iter().all(|fault| fault.code == "invalid_query"));
    }
}
