//! Text to HTML.

/// Text escaped for use between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Paragraphs of the little Markdown that descriptions use: `code`, **strong**, *stressed* and [links](/to).
pub(super) fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|text| !text.trim().is_empty());
    paragraphs.map(|text| format!("<p>{}</p>", inline(text))).collect()
}

/// The same within a line.
pub(super) fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        out += &escape(&rest[..at]);
        rest = &rest[at..];
        match marked(rest) {
            Some((html, after)) => {
                out += &html;
                rest = after;
            }
            None => {
                let (first, after) = rest.split_at(1);
                out += first;
                rest = after;
            }
        }
    }
    out + &escape(rest)
}

/// The marked text at the beginning, and the text behind it.
fn marked(text: &str) -> Option<(String, &str)> {
    if let Some((code, after)) = text.strip_prefix('`').and_then(|text| text.split_once('`')) {
        return Some((format!("<code>{}</code>", escape(code)), after));
    }
    if let Some((strong, after)) = text.strip_prefix("**").and_then(|text| text.split_once("**")) {
        return Some((format!("<strong>{}</strong>", inline(strong)), after));
    }
    let stressed = text.strip_prefix('*').filter(|text| text.starts_with(|c: char| c.is_alphanumeric()));
    if let Some((stressed, after)) = stressed.and_then(|text| text.split_once('*')) {
        return Some((format!("<em>{}</em>", inline(stressed)), after));
    }
    let (words, after) = text.strip_prefix('[')?.split_once("](")?;
    let (target, after) = after.split_once(')')?;
    // Only pages of this server are ever linked.
    let own = target.starts_with('/') && !target.starts_with("//");
    own.then(|| (format!("<a href=\"{}\">{}</a>", escape(target), inline(words)), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_yield_no_html_tags_and_no_foreign_links() {
        for (text, html) in [
            ("<script>alert(\"1\")</script>", "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"),
            ("`<b>` & 'x'", "<code>&lt;b&gt;</code> &amp; &#39;x&#39;"),
            ("**a `b`**", "<strong>a <code>b</code></strong>"),
            ("a *b* c", "a <em>b</em> c"),
            ("[a](/b)", "<a href=\"/b\">a</a>"),
            ("[a](//b)", "[a](//b)"),
            ("[a](https://b)", "[a](https://b)"),
            ("[a](javascript:b)", "[a](javascript:b)"),
            ("[a](/\"onclick=\"b)", "<a href=\"/&quot;onclick=&quot;b\">a</a>"),
            ("3 * 4 `open", "3 * 4 `open"),
        ] {
            assert_eq!(inline(text), html, "{text}");
        }
    }
}
