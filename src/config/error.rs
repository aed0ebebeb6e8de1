//! Wrong settings, as they are reported at the start.

use std::fmt;

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The name as given: a flag, an environment variable, or a key and its file.
    pub name: String,
    /// The given value; `None` if there was none, or it is or might be a secret.
    pub value: Option<String>,
    /// The allowed values.
    pub allowed: String,
}

impl InvalidSetting {
    /// A required setting that is missing, or whose value must not be shown.
    pub(super) fn missing(name: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, allowed: allowed.into() }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            // Quoted and escaped, so that a value cannot pass for another line.
            Some(value) => write!(f, "{} is {value:?}; allowed: {}", self.name, self.allowed),
            None => write!(f, "{}; allowed: {}", self.name, self.allowed),
        }
    }
}

/// Every wrong setting; never empty. Displays as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<InvalidSetting>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, wrong) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{wrong}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
