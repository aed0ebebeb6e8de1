//! Identifiers of contacts, and how they are normalised.

/// The form in which identifiers are compared: trimmed, and e-mail addresses in lower case.
#[must_use]
pub fn normalize_identifier(identifier: &str) -> String {
    let trimmed = identifier.trim();
    if is_email_shaped(trimmed) { trimmed.to_lowercase() } else { trimmed.to_owned() }
}

/// One `@`, something before it, and a name after it, which needs no dot (as in the HTML Standard, "valid e-mail
/// address"). The address need not exist.
fn is_email_shaped(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    !local.is_empty()
        && !domain.contains('@')
        && domain.split('.').all(|label| !label.is_empty())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_an_e_mail_address_is_compared_without_case() {
        for (given, compared) in [
            ("User@Example.COM", "user@example.com"),
            ("  User@Example.com ", "user@example.com"),
            ("a.b+C@sub.example.org", "a.b+c@sub.example.org"),
            ("ÄRA@Example.com", "ära@example.com"),
            ("User-42", "User-42"),
            (" User-42\t", "User-42"),
            ("@Handle", "@Handle"),
            ("User@", "User@"),
            ("User@Host", "user@host"),
            ("User@Host.", "User@Host."),
            ("A@B@C.com", "A@B@C.com"),
            ("A B@C.com", "A B@C.com"),
            ("+55 11 99999", "+55 11 99999"),
        ] {
            assert_eq!(normalize_identifier(given), compared, "{given}");
        }
    }
}
