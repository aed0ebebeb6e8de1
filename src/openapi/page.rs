//! The document as HTML, rendered on the server: no script, no font, no image, nothing from another host.
//!
//! Everything that comes from the document goes through [`html::escape`]; only this module writes tags.

use actors::webhook::EVENT_TYPES;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

use super::errors::{ERRORS, ErrorPage};
use super::schemas::told;
use html::{escape, prose};

mod curl;
mod html;
mod markdown;
mod operation;
mod shapes;

/// The style of every page.
const STYLE: &str = include_str!("page/style.css");

/// A page around `content`.
fn whole(title: &str, navigation: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<a class=\"skip\" href=\"#content\">Skip to the content</a>\n{navigation}\n\
         <main id=\"content\">\n{content}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// The page of one error.
pub(super) fn error(error: &ErrorPage) -> String {
    let content = format!(
        "<p class=\"crumbs\"><a href=\"/docs\">Tertulia API</a> / <a href=\"/docs#errors\">Errors</a></p>\n{}",
        markdown::html(error.text)
    );
    whole(&format!("{} · Tertulia API", error.code), "", &content)
}

/// The whole reference.
pub(super) fn reference(document: &OpenApi) -> String {
    let groups = grouped(document);
    let mut content = format!(
        "<header><h1>{} API <small>{}</small></h1>\n{}\n<p><a class=\"button\" href=\"/openapi.json\">OpenAPI 3.1 \
         document</a></p></header>\n",
        escape(&document.info.title),
        escape(&document.info.version),
        prose(document.info.description.as_deref().unwrap_or_default())
    );
    for (tag, about, operations) in &groups {
        content += &format!("<section><h2 id=\"{}\">{}</h2>\n{}\n", anchor(tag), escape(tag), prose(about));
        for (path, method, operation) in operations {
            content += &operation::article(document, path, method, operation);
        }
        content += "</section>\n";
    }
    content += &events();
    content += &shapes::section(document);
    content += &errors();
    whole("Tertulia API", &navigation(&groups), &content)
}

/// A tag, what it is about, and its operations.
type Group<'a> = (&'a str, &'a str, Vec<(&'a str, &'static str, &'a Operation)>);

fn grouped(document: &OpenApi) -> Vec<Group<'_>> {
    let has = |operation: &Operation, tag: &str| operation.tags.iter().flatten().any(|name| name == tag);
    document
        .tags
        .iter()
        .flatten()
        .map(|tag| {
            let operations = document.paths.paths.iter().flat_map(|(path, item)| {
                methods(item).into_iter().map(move |(method, operation)| (path.as_str(), method, operation))
            });
            let own = operations.filter(|(_, _, operation)| has(operation, &tag.name)).collect();
            (tag.name.as_str(), tag.description.as_deref().unwrap_or_default(), own)
        })
        .collect()
}

/// The operations of a path, each with its method; creating ones first.
fn methods(item: &PathItem) -> Vec<(&'static str, &Operation)> {
    [("POST", &item.post), ("GET", &item.get), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)]
        .into_iter()
        .filter_map(|(method, operation)| operation.as_ref().map(|operation| (method, operation)))
        .collect()
}

fn navigation(groups: &[Group<'_>]) -> String {
    // On a small screen the list is folded; a checkbox opens it without a script.
    let mut out = String::from(
        "<nav aria-label=\"Contents\"><input type=\"checkbox\" id=\"menu\"><label for=\"menu\">Tertulia API</label>\n<div>\n",
    );
    for (tag, _, operations) in groups {
        out += &format!("<p><a href=\"#{}\">{}</a></p>\n<ul>\n", anchor(tag), escape(tag));
        for (_, method, operation) in operations {
            out += &format!(
                "<li><a href=\"#{}\"><span class=\"verb {}\">{}</span> <span>{}</span></a></li>\n",
                escape(operation.operation_id.as_deref().unwrap_or_default()),
                method.to_ascii_lowercase(),
                method,
                escape(operation.summary.as_deref().unwrap_or_default())
            );
        }
        out += "</ul>\n";
    }
    out + "<p><a href=\"#webhook-events\">Webhook events</a></p>\n<p><a href=\"#shapes\">Shapes</a></p>\n\
           <p><a href=\"#errors\">Errors</a></p>\n</div></nav>"
}

/// Every type of event, and the schema of its data.
fn events() -> String {
    let mut out = String::from(
        "<section><h2 id=\"webhook-events\">Webhook events</h2>\n<div class=\"scroll\"><table><thead><tr><th>Type</th>\
         <th>Meaning</th><th>Data</th></tr></thead><tbody>\n",
    );
    for kind in EVENT_TYPES {
        if let Some((about, data)) = told(kind) {
            out += &format!(
                "<tr><td><code>{}</code></td><td>{}</td><td><a href=\"#shape-{2}\">{2}</a></td></tr>\n",
                escape(kind),
                html::inline(about),
                escape(data)
            );
        }
    }
    out + "</tbody></table></div></section>\n"
}

fn errors() -> String {
    let mut out = String::from(
        "<section><h2 id=\"errors\">Errors</h2>\n<div class=\"scroll\"><table><thead><tr><th>Code</th><th>Status</th>\
         <th>Meaning</th></tr></thead><tbody>\n",
    );
    for error in ERRORS {
        out += &format!(
            "<tr><td><a href=\"/docs/errors/{0}\"><code>{0}</code></a></td><td>{1}</td><td>{2}</td></tr>\n",
            escape(error.code),
            escape(error.status()),
            html::inline(error.title())
        );
    }
    out + "</tbody></table></div></section>\n"
}

/// The part of a URL behind `#` for a name.
fn anchor(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// The component that a reference names, or the thing itself.
fn resolved<'a, T>(thing: &'a RefOr<T>, find: impl FnOnce(&str) -> Option<&'a RefOr<T>>) -> Option<&'a T> {
    match thing {
        RefOr::T(thing) => Some(thing),
        RefOr::Ref(reference) => match find(last(&reference.ref_location))? {
            RefOr::T(thing) => Some(thing),
            // A component is never a reference itself.
            RefOr::Ref(_) => None,
        },
    }
}

/// The name at the end of a reference.
fn last(location: &str) -> &str {
    location.rsplit('/').next().unwrap_or(location)
}
