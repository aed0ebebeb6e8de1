//! One operation of the page.

use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Content, OpenApi, RefOr, Required, Response};

use super::html::{escape, inline, prose};
use super::{curl, resolved, shapes};

/// The complete description of an operation.
pub(super) fn article(document: &OpenApi, path: &str, method: &str, operation: &Operation) -> String {
    let id = escape(operation.operation_id.as_deref().unwrap_or_default());
    let mut out = format!(
        "<article><h3 id=\"{id}\"><a href=\"#{id}\">{}</a></h3>\n<p class=\"route\"><span class=\"verb {}\">{method}</span> \
         <code>{}</code></p>\n{}\n",
        escape(operation.summary.as_deref().unwrap_or_default()),
        method.to_ascii_lowercase(),
        escape(path).replace('/', "/<wbr>"),
        prose(operation.description.as_deref().unwrap_or_default()),
    );
    out += &parameters(document, operation);
    out += &body(document, operation);
    out += &format!("<h4>Request</h4>\n{}", curl::requests(path, method, operation));
    out += &answers(document, operation);
    out + "</article>\n"
}

fn parameters(document: &OpenApi, operation: &Operation) -> String {
    let components = document.components.as_ref();
    let known: Vec<&Parameter> = operation
        .parameters
        .iter()
        .flatten()
        .filter_map(|parameter| resolved(parameter, |name| components?.parameters.get(name)))
        .collect();
    if known.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for parameter in known {
        let place = match parameter.parameter_in {
            ParameterIn::Query => "query",
            ParameterIn::Path => "path",
            ParameterIn::Header => "header",
            _ => "cookie",
        };
        let required = match parameter.required {
            Required::True => " <span class=\"required\">required</span>",
            Required::False => "",
        };
        let schema = parameter.schema.as_ref();
        rows += &format!(
            "<tr><td><code>{}</code>{required}</td><td>{place}, {}</td><td>{}{}</td></tr>\n",
            escape(&parameter.name),
            schema.map(shapes::kind).unwrap_or_default(),
            inline(parameter.description.as_deref().unwrap_or_default()),
            schema.map(shapes::bounds).unwrap_or_default()
        );
    }
    format!(
        "<details><summary>Parameters and headers</summary><div class=\"scroll\"><table><thead><tr><th>Name</th>\
         <th>Where, type</th><th>Meaning</th></tr></thead><tbody>\n{rows}</tbody></table></div></details>\n"
    )
}

fn body(document: &OpenApi, operation: &Operation) -> String {
    let Some(RefOr::T(body)) = &operation.request_body else { return String::new() };
    let mut out = String::from("<h4>Body</h4>\n");
    out += &prose(body.description.as_deref().unwrap_or_default());
    for content in body.content.values() {
        let RefOr::T(content) = content else { continue };
        out += &alternatives(document, content);
    }
    out
}

/// The table of a body's shape, or one for each shape that it may have.
fn alternatives(document: &OpenApi, content: &Content) -> String {
    use utoipa::openapi::Schema;
    let Some(schema) = &content.schema else { return String::new() };
    let components = document.components.as_ref();
    let find = |schema: &RefOr<Schema>| match schema {
        RefOr::Ref(reference) => components?.schemas.get(super::last(&reference.ref_location)).cloned(),
        RefOr::T(_) => Some(schema.clone()),
    };
    let several = match find(schema) {
        Some(RefOr::T(Schema::OneOf(one))) => one.items,
        Some(RefOr::T(Schema::AnyOf(any))) => any.items,
        _ => vec![schema.clone()],
    };
    let named = several.iter().filter(|shape| matches!(shape, RefOr::Ref(_)));
    let tables = named.filter_map(|shape| Some((shapes::kind(shape), shapes::table(&find(shape)?))));
    let open = |at| if at == 0 { " open" } else { "" };
    tables
        .enumerate()
        .map(|(at, (kind, table))| format!("<details{}><summary>{kind}</summary>{table}</details>\n", open(at)))
        .collect()
}

fn answers(document: &OpenApi, operation: &Operation) -> String {
    let mut out = String::from("<h4>Responses</h4>\n<dl class=\"answers\">\n");
    let mut examples = String::new();
    for (status, response) in &operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        out += &format!(
            "<dt><span class=\"status s{}\">{}</span></dt><dd>{}{}{}</dd>\n",
            escape(&status[..1]),
            escape(status),
            inline(&response.description),
            contents(response),
            headers(document, status, response)
        );
        for content in response.content.values() {
            let RefOr::T(content) = content else { continue };
            examples += &curl::examples(status, content);
        }
    }
    out + "</dl>\n" + &examples
}

fn contents(response: &Response) -> String {
    let each = response.content.iter().filter_map(|(media, content)| {
        let RefOr::T(content) = content else { return None };
        // The common form of errors is described once.
        (media != "application/problem+json").then(|| content.schema.as_ref().map(shapes::kind)).flatten()
    });
    each.map(|kind| format!(" <span class=\"type\">{kind}</span>")).collect()
}

/// The headers of answers; those of errors are described elsewhere.
fn headers(document: &OpenApi, status: &str, response: &Response) -> String {
    if !status.starts_with('2') {
        return String::new();
    }
    let components = document.components.as_ref();
    let names = response.headers.iter().map(|(name, header)| {
        let header = resolved(header, |name| components?.headers.get(name));
        let about = header.and_then(|header| header.description.as_deref()).unwrap_or_default();
        format!("<code title=\"{}\">{}</code>", escape(about), escape(name))
    });
    let names: Vec<_> = names.collect();
    if names.is_empty() { String::new() } else { format!("<br><small>Headers: {}</small>", names.join(" ")) }
}
