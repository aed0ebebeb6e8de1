//! Validating a value against a client's schema, within bounds that are known before it begins.

use serde_json::Value;

use super::Schema;
use super::walk::LevelCost;

/// Keywords that one validation may evaluate; a value that may need more is refused without being validated. A keyword
/// takes some ten nanoseconds.
const MAX_EVALUATIONS: u64 = 20_000_000;
/// Keywords that a quick validation may evaluate.
const QUICK_EVALUATIONS: u64 = 200_000;
/// Violations are listed if there can be at most so many, and if they need at most so much memory: the library collects
/// all of them before it returns the first.
const MAX_LISTED: u64 = 500_000;
const MAX_ERROR_BYTES: u64 = 128 * 1024 * 1024;
/// One violation in memory, without its paths and its copy of the value.
const ERROR_BYTES: u64 = 512;
/// A copied value in memory, without its text.
const VALUE_BYTES: u64 = 72;
/// Bytes of a text that a keyword reads in the time of one evaluation, and those that a pattern reads in the time of one
/// match.
const BYTES_PER_EVALUATION: u64 = 64;
const BYTES_PER_MATCH: u64 = 8;

/// The longest message of a violation, in characters.
const MESSAGE_CHARS: usize = 500;

/// A part of a value that violates the schema.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer into the value.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// The result of a validation.
#[derive(Debug, PartialEq, Eq)]
pub enum ValidationResult {
    /// The value is valid.
    Valid,
    /// It is invalid, with these violations and perhaps others.
    Invalid(Vec<Violation>),
    /// It is invalid; listing the violations would take too much time or memory.
    InvalidUnlisted,
    /// It was not validated, because that would take too long.
    TooExpensive,
    /// The schema cannot be compiled.
    UnusableSchema,
}

/// The validation of a value, with its cost.
#[derive(Debug)]
pub struct PlannedValidation {
    schema: Schema,
    cost: Cost,
}

/// Upper bounds of what a validation needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    evaluations: u64,
    error_bytes: u64,
}

impl PlannedValidation {
    /// Calculates the cost of validating `value`.
    #[must_use]
    pub fn new(schema: Schema, value: &Value) -> Self {
        let cost = Cost::of(&schema, value);
        Self { schema, cost }
    }

    /// Whether [`PlannedValidation::run`] takes some milliseconds at most, and any thread's stack suffices.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.schema.is_quick() && self.cost.evaluations <= QUICK_EVALUATIONS
    }

    /// Validates `value`, for which the cost was calculated, and lists at most `most` violations. Unless the validation
    /// [is quick](PlannedValidation::is_quick), the thread needs [`super::STACK_BYTES`].
    #[must_use]
    pub fn run(&self, value: &Value, most: usize) -> ValidationResult {
        if self.cost.evaluations > MAX_EVALUATIONS {
            return ValidationResult::TooExpensive;
        }
        let Ok(validator) = self.schema.compile() else { return ValidationResult::UnusableSchema };
        if validator.is_valid(value) {
            return ValidationResult::Valid;
        }
        if self.cost.evaluations > MAX_LISTED || self.cost.error_bytes > MAX_ERROR_BYTES {
            return ValidationResult::InvalidUnlisted;
        }
        let violations = validator.iter_errors(value).take(most).map(|error| Violation {
            pointer: error.instance_path().to_string(),
            // A message may quote the whole value.
            message: error.to_string().chars().take(MESSAGE_CHARS).collect(),
        });
        ValidationResult::Invalid(violations.collect())
    }
}

/// The number and size of a value's parts at one depth, or from one depth on.
#[derive(Clone, Copy, Debug, Default)]
struct Values {
    /// How many there are; names of members are counted too.
    count: u64,
    /// Bytes of texts and names.
    bytes: u64,
}

impl Values {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }

    fn add_text(&mut self, text: &str) {
        self.add(Self { count: 1, bytes: text.len() as u64 });
    }
}

impl Cost {
    /// Each evaluation of a value follows one of the schema's paths that end at the value's depth, and none is followed
    /// twice. So the cost is at most, for each depth, that of the schema there times the values there.
    fn of(schema: &Schema, value: &Value) -> Self {
        let mut depths = Vec::new();
        let path_bytes = count(value, 0, &mut depths) + 2 * schema.walk.path_bytes as u64;
        let mut cost = Self::default();
        let mut inner = Values::default();
        // From the deepest one, since some keywords read a value with all parts below it.
        for (depth, values) in depths.iter().enumerate().rev() {
            let LevelCost { keywords, deep, patterns } = schema.walk.levels.get(depth).copied().unwrap_or_default();
            let parts = depths.get(depth + 1).map_or(0, |parts| parts.count);
            inner.add(*values);
            let read = |values: Values| values.count.saturating_add(values.bytes / BYTES_PER_EVALUATION);
            let once = keywords.saturating_mul(read(*values).saturating_add(parts));
            let deeply = deep.saturating_mul(read(inner));
            let matching = patterns.saturating_mul(values.count.saturating_add(values.bytes / BYTES_PER_MATCH));
            let all = once.saturating_add(deeply).saturating_add(matching);
            cost.evaluations = cost.evaluations.saturating_add(all);
            let each = ERROR_BYTES + path_bytes;
            let copies = inner.count * VALUE_BYTES + inner.bytes;
            let listed = values.count.saturating_mul(each).saturating_add(copies);
            cost.error_bytes = cost.error_bytes.saturating_add(keywords.saturating_mul(listed));
        }
        cost
    }
}

/// Adds the values of each depth; returns the bytes of the longest path to one.
fn count(value: &Value, depth: usize, depths: &mut Vec<Values>) -> u64 {
    /// Enough for the slash and an index.
    const STEP_BYTES: u64 = 8;
    if depths.len() <= depth {
        depths.resize(depth + 1, Values::default());
    }
    match value {
        Value::String(text) => depths[depth].add_text(text),
        _ => depths[depth].count += 1,
    }
    let mut longest = 0;
    match value {
        Value::Object(members) => {
            for (name, part) in members {
                let below = count(part, depth + 1, depths);
                depths[depth + 1].add_text(name);
                longest = longest.max(STEP_BYTES + name.len() as u64 + below);
            }
        }
        Value::Array(items) => {
            for item in items {
                longest = longest.max(STEP_BYTES + count(item, depth + 1, depths));
            }
        }
        _ => {}
    }
    longest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn validated(schema: Value, value: &Value) -> ValidationResult {
        PlannedValidation::new(Schema::stored(schema).unwrap(), value).run(value, 10)
    }

    fn evaluations(schema: Value, value: &Value) -> u64 {
        Cost::of(&Schema::stored(schema).unwrap(), value).evaluations
    }

    /// `items` that each have to match `fan` times `fan` types.
    fn of_types(fan: usize, kind: &str) -> Value {
        let types = json!({"allOf": vec![json!({"type": kind}); fan]});
        let items = json!({"allOf": vec![json!({"$ref": "#/$defs/f"}); fan]});
        json!({"$defs": {"f": types}, "properties": {"a": {"items": items}}})
    }

    #[test]
    fn few_violations_are_listed_many_are_not_and_too_many_not_sought() {
        let zeros = |n: usize| json!({"a": vec![0; n]});
        let listed = validated(of_types(2, "string"), &zeros(2));
        let ValidationResult::Invalid(listed) = listed else { panic!("{listed:?}") };
        assert_eq!(listed.len(), 8);
        assert_eq!(
            listed[0],
            Violation { pointer: "/a/0".to_owned(), message: "0 is not of type \"string\"".to_owned() }
        );
        assert_eq!(validated(of_types(20, "string"), &zeros(1_000)), ValidationResult::InvalidUnlisted);
        assert_eq!(validated(of_types(20, "integer"), &zeros(1_000)), ValidationResult::Valid);
        assert_eq!(validated(of_types(60, "string"), &zeros(32_760)), ValidationResult::TooExpensive);
        assert_eq!(validated(of_types(60, "integer"), &zeros(32_760)), ValidationResult::TooExpensive);
    }

    /// The library copies a value for each schema of `anyOf` that it does not match.
    #[test]
    fn violations_that_copy_a_long_value_are_not_listed() {
        let any = json!({"anyOf": vec![json!({"type": "string"}); 100]});
        assert!(matches!(validated(any.clone(), &json!({"a": 1})), ValidationResult::Invalid(_)));
        assert_eq!(validated(any, &json!({"a": vec![0; 32_000]})), ValidationResult::InvalidUnlisted);
    }

    #[test]
    fn only_the_steps_at_a_values_depth_count() {
        let tree = json!({"properties": {"children": {"items": {"$ref": "#"}}}});
        let leaves = json!({"children": vec![json!({}); 10_000]});
        let cost = evaluations(tree.clone(), &leaves);
        assert!((20_000..200_000).contains(&cost), "{cost}");
        assert_eq!(validated(tree, &leaves), ValidationResult::Valid);
    }

    #[test]
    fn a_pattern_costs_as_much_as_the_text_that_it_reads() {
        let schema = json!({"properties": {"a": {"pattern": "^x*$"}}});
        let [short, long] = [8, 8_000].map(|n| evaluations(schema.clone(), &json!({"a": "x".repeat(n)})));
        assert!(long > 64 * 1_000 && short < 1_000, "{short} {long}");
        let times = |n: usize| json!({"allOf": vec![json!({"properties": {"a": {"pattern": "^x*$"}}}); n]});
        assert_eq!(validated(times(50), &json!({"a": "x".repeat(60_000)})), ValidationResult::TooExpensive);
    }

    #[test]
    fn a_keyword_that_reads_a_whole_value_costs_as_much_as_its_parts() {
        let value = json!({"a": vec![json!([1]); 1_000]});
        let plain = evaluations(json!({"allOf": [{"minProperties": 1}]}), &value);
        let whole = evaluations(json!({"allOf": [{"uniqueItems": true}]}), &value);
        assert!(whole >= plain + 2_000, "{plain} {whole}");
    }
}
