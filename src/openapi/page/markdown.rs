//! The Markdown of the error pages to HTML: headings, paragraphs, lists, tables and code, nothing else.

use super::html::{escape, inline};

/// A page as HTML.
pub(super) fn html(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let mut out = String::new();
    let mut parts = text.split("```");
    // The text between two fences is code, unchanged.
    while let Some(prose) = parts.next() {
        prose.split("\n\n").map(str::trim).filter(|block| !block.is_empty()).for_each(|text| out += &block(text));
        if let Some(code) = parts.next() {
            // The first line names the language.
            let code = code.split_once('\n').map_or(code, |(_, code)| code);
            out += &format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(code));
        }
    }
    out
}

fn block(text: &str) -> String {
    let level = text.bytes().take_while(|byte| *byte == b'#').count();
    if (1..=4).contains(&level) {
        let (heading, rest) = text[level..].split_once('\n').unwrap_or((&text[level..], ""));
        let rest = if rest.is_empty() { String::new() } else { block(rest.trim()) };
        return format!("<h{level}>{}</h{level}>\n{rest}", words(heading.trim()));
    }
    if text.starts_with('|') {
        return table(text);
    }
    if text.lines().all(|line| line.starts_with("- ") || line.starts_with("  ")) {
        let items = text.split("\n- ").map(|item| format!("<li>{}</li>", words(item.trim_start_matches("- "))));
        return format!("<ul>{}</ul>\n", items.collect::<String>());
    }
    format!("<p>{}</p>\n", words(text))
}

fn table(text: &str) -> String {
    let cells = |line: &str, tag: &str| {
        let cells = line.trim().trim_matches('|').split('|');
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", words(cell.trim()))).collect();
        format!("<tr>{cells}</tr>")
    };
    let mut lines = text.lines();
    let head = cells(lines.next().unwrap_or_default(), "th");
    let rule = |line: &&str| !line.bytes().all(|byte| b"|-: ".contains(&byte));
    let rows: String = lines.filter(rule).map(|line| cells(line, "td")).collect();
    format!("<div class=\"scroll\"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>\n")
}

/// A line; pages link to each other by their files.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((target, behind)) = after.split_once(')') else { break };
        let page = target
            .strip_suffix(".md")
            .filter(|page| page.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        out += before;
        out += &page.map_or_else(|| format!("]({target})"), |page| format!("](/docs/errors/{page})"));
        rest = behind;
    }
    inline(&(out + rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_headings_tables_lists_and_code() {
        for (text, expected) in [
            ("# `a`: b\n\nc <d>", "<h1><code>a</code>: b</h1>\n<p>c &lt;d&gt;</p>\n"),
            ("- a\n- b", "<ul><li>a</li><li>b</li></ul>\n"),
            ("a [b](c_d.md) e", "<p>a <a href=\"/docs/errors/c_d\">b</a> e</p>\n"),
            ("[b](https://c.md)", "<p>[b](https://c.md)</p>\n"),
            ("```json\n{\"a\": 1}\n```", "<pre tabindex=\"0\"><code>{&quot;a&quot;: 1}\n</code></pre>\n"),
            (
                "| a | b |\n|---|---|\n| `c` | d |",
                "<div class=\"scroll\"><table><thead><tr><th>a</th><th>b</th></tr></thead>\
                 <tbody><tr><td><code>c</code></td><td>d</td></tr></tbody></table></div>\n",
            ),
        ] {
            assert_eq!(html(text), expected, "{text}");
        }
    }
}
