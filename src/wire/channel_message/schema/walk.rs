//! Every path that a validation can take through a schema, followed until it ends or exceeds a bound. A path is a chain
//! of subschemas, from the whole schema to a keyword or reference below it, and so on.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::QUICK_STEPS;
use super::faults::{SchemaFault, Unusable, located};
use super::references::{References, Targets};
use crate::json::MAX_DEPTH;

/// Subschemas on all paths, each counted once for every path. A few lines of fanning references may have more than there
/// is time for, and neither compiling nor validating can be interrupted.
pub(super) const MAX_STEPS: usize = 4_000;
/// Consecutive subschemas of a path that apply to the same value. Each takes stack, while compiling and while validating;
/// no sensible schema has more than a few.
const MAX_SAME_VALUE_DEPTH: usize = 128;
/// Subschemas of a path. [`super::STACK_BYTES`] has room for them.
const MAX_PATH_STEPS: usize = 1_024;
/// How often a schema with an `unevaluated…` keyword evaluates the subschemas for the same value: as other schemas do, to
/// decide whether they count for that keyword, and to find the members and items that they have evaluated.
const TIMES_BESIDE_UNEVALUATED: usize = 3;
/// How often it evaluates the parts by that keyword itself, and by `contains`.
const TIMES_BY_UNEVALUATED: usize = 2;
/// Steps of the draft's own schemas for one value: the main one and its vocabularies, and members of these.
const META_STEPS: usize = 16;
/// What a match of a pattern costs, in evaluations of keywords.
const PATTERN_COST: u64 = 64;

/// Keywords with subschemas for the same value.
const SAME_VALUE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// A member of `dependencies` may also be a list of names; that is no schema, and ends the path.
const SAME_VALUE_MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
const SAME_VALUE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords with subschemas for a value's parts. A schema where only a reference leads may have those of older drafts,
/// too: nobody but the compiler reads it.
const INNER_LISTS: [&str; 2] = ["prefixItems", "items"];
const INNER_MAPS: [&str; 2] = ["properties", "patternProperties"];
const INNER: [&str; 4] = ["additionalProperties", "propertyNames", "items", "additionalItems"];
/// Those that a schema with an `unevaluated…` keyword evaluates again.
const INNER_AGAIN: [&str; 3] = ["contains", "unevaluatedProperties", "unevaluatedItems"];

/// The cost of one value at some depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LevelCost {
    /// Evaluations of keywords, and comparisons with listed names and values.
    pub(super) keywords: u64,
    /// How many of them read the value with all its parts.
    pub(super) deep: u64,
    /// Matches of patterns, in evaluations of keywords.
    pub(super) patterns: u64,
}

/// The extent of the paths through a schema.
#[derive(Debug)]
pub(super) struct Walk {
    /// Subschemas on all paths.
    pub(super) steps: usize,
    /// The longest path of keywords and names, in bytes.
    pub(super) path_bytes: usize,
    /// Whether the draft's own schemas take part.
    pub(super) meta_schemas: bool,
    /// The cost of a value at each depth, the top level first.
    pub(super) levels: Vec<LevelCost>,
}

impl Default for Walk {
    fn default() -> Self {
        Self { steps: 0, path_bytes: 0, meta_schemas: false, levels: vec![LevelCost::default()] }
    }
}

/// The subschemas of `root` on all paths, up to the bound.
pub(super) fn reachable(root: &Value) -> HashSet<*const Value> {
    let mut read = HashMap::new();
    // The bound is no fault here.
    _ = Walk::default().follow(root, &References::of(root), &mut read, &mut Unusable::new());
    read.into_keys().collect()
}

/// A subschema on a path.
struct Visit<'a> {
    schema: &'a Value,
    /// The depth of the values that it applies to.
    depth: usize,
    /// How many subschemas immediately before it on the path apply to the same value.
    same_value_depth: usize,
    /// How many are before it on the path.
    path_steps: usize,
    path_bytes: usize,
}

impl Walk {
    /// Follows every path through `root`.
    ///
    /// # Errors
    /// The bound that it exceeds, and the references that cannot be followed.
    pub(super) fn through(root: &Value, references: References<'_>) -> Result<Self, Vec<SchemaFault>> {
        let mut walk = Self::default();
        let mut unusable = Unusable::new();
        let exceeded = walk.follow(root, &references, &mut HashMap::new(), &mut unusable).err();
        let mut faults = references.faults;
        faults.extend(located(root, &unusable));
        faults.extend(exceeded.map(SchemaFault::at_root));
        if faults.is_empty() { Ok(walk) } else { Err(faults) }
    }

    /// Whether compiling takes at most a millisecond.
    pub(super) const fn is_quick(&self) -> bool {
        self.steps <= QUICK_STEPS && !self.meta_schemas
    }

    /// Follows every path and remembers each subschema in `read`. A reference that cannot be followed ends its path.
    /// `Err`: the bound that is exceeded.
    fn follow<'a>(
        &mut self,
        root: &'a Value,
        references: &References<'a>,
        read: &mut HashMap<*const Value, Keywords>,
        unusable: &mut Unusable,
    ) -> Result<(), String> {
        let mut ahead = vec![Visit { schema: root, depth: 0, same_value_depth: 0, path_steps: 0, path_bytes: 0 }];
        while let Some(visit) = ahead.pop() {
            // A schema may have very many members, and be visited very often.
            let keywords = *read.entry(std::ptr::from_ref(visit.schema)).or_insert_with(|| Keywords::of(visit.schema));
            self.add(&visit, keywords)?;
            let Some(members) = visit.schema.as_object() else { continue };
            let Targets { subschemas: targets, meta_schemas, unusable: wrong } = references.targets(members);
            if !wrong.is_empty() {
                unusable.entry(std::ptr::from_ref(visit.schema)).or_insert(wrong);
            }
            self.add_meta_schemas(&visit, meta_schemas);
            let same_value = subschemas(members, &SAME_VALUE, &SAME_VALUE_LISTS, &SAME_VALUE_MAPS);
            let times = if keywords.unevaluated { TIMES_BESIDE_UNEVALUATED } else { 1 };
            for (schema, bytes) in same_value.chain(targets) {
                ahead.extend((0..times).map(|_| visit.for_same_value(schema, bytes)));
                self.refuse_more(ahead.len())?;
            }
            // No answer is nested deeper, so a self-referring schema is followed no further.
            if visit.depth < MAX_DEPTH {
                let inner = subschemas(members, &INNER, &INNER_LISTS, &INNER_MAPS);
                ahead.extend(inner.map(|(schema, bytes)| visit.for_parts(schema, bytes)));
                let times = if keywords.unevaluated { TIMES_BY_UNEVALUATED } else { 1 };
                for (schema, bytes) in subschemas(members, &INNER_AGAIN, &[], &[]) {
                    ahead.extend((0..times).map(|_| visit.for_parts(schema, bytes)));
                }
            }
            self.refuse_more(ahead.len())?;
        }
        Ok(())
    }

    fn add(&mut self, visit: &Visit<'_>, keywords: Keywords) -> Result<(), String> {
        if visit.same_value_depth >= MAX_SAME_VALUE_DEPTH {
            return Err(format!(
                "more than {MAX_SAME_VALUE_DEPTH} of its subschemas apply to one value, each through the other"
            ));
        }
        if visit.path_steps >= MAX_PATH_STEPS {
            return Err(format!("more than {MAX_PATH_STEPS} of its subschemas lead from one to the other"));
        }
        self.steps += 1;
        self.refuse_more(0)?;
        self.path_bytes = self.path_bytes.max(visit.path_bytes);
        self.level(visit.depth).add(keywords.cost);
        if keywords.cost_of_names.patterns > 0 {
            self.level(visit.depth + 1).add(keywords.cost_of_names);
        }
        Ok(())
    }

    /// Adds the cost of the draft's own schemas, which apply to a value and, through each other, to every part of it.
    fn add_meta_schemas(&mut self, visit: &Visit<'_>, times: usize) {
        if times == 0 {
            return;
        }
        let steps = times * META_STEPS;
        self.meta_schemas = true;
        self.steps += steps;
        for depth in visit.depth..=MAX_DEPTH {
            let level = self.level(depth);
            level.keywords += steps as u64;
            level.deep += times as u64;
            level.patterns += times as u64 * PATTERN_COST;
        }
    }

    fn level(&mut self, depth: usize) -> &mut LevelCost {
        if self.levels.len() <= depth {
            self.levels.resize(depth + 1, LevelCost::default());
        }
        &mut self.levels[depth]
    }

    /// Checks the bound of steps. Those that are still `ahead` count too, so that few are in memory at a time.
    fn refuse_more(&self, ahead: usize) -> Result<(), String> {
        if self.steps + ahead > MAX_STEPS {
            return Err(format!("checking an answer against it may take more than {MAX_STEPS} steps"));
        }
        Ok(())
    }
}

impl Visit<'_> {
    /// A subschema for the same value.
    fn for_same_value<'b>(&self, schema: &'b Value, bytes: usize) -> Visit<'b> {
        let Self { depth, same_value_depth, path_steps, path_bytes, .. } = *self;
        Visit {
            schema,
            depth,
            same_value_depth: same_value_depth + 1,
            path_steps: path_steps + 1,
            path_bytes: path_bytes + bytes,
        }
    }

    /// A subschema for the value's parts.
    fn for_parts<'b>(&self, schema: &'b Value, bytes: usize) -> Visit<'b> {
        let Self { depth, path_steps, path_bytes, .. } = *self;
        Visit {
            schema,
            depth: depth + 1,
            same_value_depth: 0,
            path_steps: path_steps + 1,
            path_bytes: path_bytes + bytes,
        }
    }
}

impl LevelCost {
    fn add(&mut self, other: Self) {
        self.keywords += other.keywords;
        self.deep += other.deep;
        self.patterns += other.patterns;
    }
}

/// The keywords of one schema, without those of its subschemas.
#[derive(Clone, Copy, Default)]
struct Keywords {
    cost: LevelCost,
    /// The cost of each name of an object's members, one level below the object.
    cost_of_names: LevelCost,
    /// Whether there is an `unevaluated…` keyword.
    unevaluated: bool,
}

impl Keywords {
    fn of(schema: &Value) -> Self {
        let mut keywords = Self::default();
        keywords.cost.keywords = 1;
        schema.as_object().into_iter().flatten().for_each(|(keyword, value)| keywords.add(keyword, value));
        keywords
    }

    fn add(&mut self, keyword: &str, value: &Value) {
        let listed = |value: &Value| value.as_array().map_or(0, Vec::len) as u64;
        let cost = &mut self.cost;
        cost.keywords += 1;
        match keyword {
            "pattern" => cost.patterns += PATTERN_COST,
            "uniqueItems" | "const" => cost.deep += 1,
            "enum" => {
                // Strings are looked up; other options are compared one by one.
                let options = value.as_array().into_iter().flatten().filter(|option| !option.is_string());
                cost.keywords += options.clone().count() as u64;
                cost.deep += options.filter(|option| option.is_array() || option.is_object()).count() as u64;
            }
            "required" => cost.keywords += listed(value),
            "dependentRequired" | "dependencies" => {
                cost.keywords += value.as_object().map_or(0, |map| map.values().map(|names| 1 + listed(names)).sum());
            }
            "patternProperties" => {
                let patterns = value.as_object().map_or(0, Map::len) as u64;
                self.cost_of_names = LevelCost { keywords: patterns, deep: 0, patterns: patterns * PATTERN_COST };
            }
            _ => self.unevaluated |= keyword.starts_with("unevaluated"),
        }
    }
}

/// The subschemas under these names: single ones, in lists, and in maps; each with the bytes of the way to it.
fn subschemas<'a>(
    members: &'a Map<String, Value>,
    single: &'static [&'static str],
    lists: &'static [&'static str],
    maps: &'static [&'static str],
) -> impl Iterator<Item = (&'a Value, usize)> {
    /// Enough for the slashes and an index.
    const STEP_BYTES: usize = 8;
    let get = move |name: &&'static str| Some((members.get(*name)?, name.len() + STEP_BYTES));
    let alone = single.iter().filter_map(get);
    let listed = lists.iter().filter_map(get).filter_map(|(value, bytes)| Some((value.as_array()?, bytes)));
    let listed = listed.flat_map(|(items, bytes)| items.iter().map(move |item| (item, bytes)));
    let mapped = maps.iter().filter_map(get).filter_map(|(value, bytes)| Some((value.as_object()?, bytes)));
    let mapped = mapped.flat_map(|(map, bytes)| map.iter().map(move |(name, value)| (value, bytes + name.len())));
    alone.chain(listed).chain(mapped)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn walk(schema: &Value) -> Result<Walk, String> {
        Walk::through(schema, References::of(schema)).map_err(|faults| faults[0].message.clone())
    }

    /// Definitions of which each refers to the next one.
    fn chain(definitions: usize, link: impl Fn(Value) -> Value) -> Value {
        let to = |n: usize| json!({"$ref": format!("#/$defs/d{n}")});
        let mut all: Map<_, _> = (1..definitions).map(|n| (format!("d{}", n - 1), link(to(n)))).collect();
        all.insert(format!("d{}", definitions - 1), json!({}));
        json!({"$defs": all, "$ref": "#/$defs/d0"})
    }

    #[test]
    fn a_chain_of_subschemas_is_bounded_for_one_value_and_for_all() {
        let same_value = |definitions| chain(definitions, |next| next);
        assert!(walk(&same_value(MAX_SAME_VALUE_DEPTH - 1)).is_ok());
        assert!(walk(&same_value(MAX_SAME_VALUE_DEPTH)).unwrap_err().contains("apply to one value"));
        // Deeper in the value the count begins again, but not that of the whole path.
        let link = |next: Value| json!({"allOf": [{"allOf": [{"allOf": [{"allOf": [{"items": next}]}]}]}]});
        assert!(walk(&chain(20, link)).is_ok());
        let long = |next: Value| (0..40).fold(json!({"items": next}), |inner, _| json!({"allOf": [inner]}));
        assert!(walk(&chain(20, long)).is_ok());
        assert!(walk(&chain(40, long)).unwrap_err().contains("lead from one to the other"));
    }

    #[test]
    fn no_more_steps_wait_than_may_be_taken() {
        let one = json!({"$anchor": "x", "$ref": "#x", "$dynamicRef": "#x", "unevaluatedItems": 1});
        let all: Map<_, _> = (0..900).map(|n| (format!("d{n}"), one.clone())).collect();
        assert!(walk(&json!({"$defs": all, "$ref": "#x"})).unwrap_err().contains("steps"));
    }

    #[test]
    fn a_walk_counts_the_work_at_each_depth() {
        let schema = json!({"required": ["a", "b"], "properties": {"a": {"pattern": "x"}, "b": {"enum": [1, [2], {}]}},
            "items": {"uniqueItems": true}});
        let walk = walk(&schema).unwrap();
        assert_eq!((walk.steps, walk.meta_schemas), (4, false));
        let top = LevelCost { keywords: 1 + 3 + 2, deep: 0, patterns: 0 };
        let inner = LevelCost { keywords: 3 * 2 + 3, deep: 1 + 2, patterns: PATTERN_COST };
        assert_eq!(walk.levels, [top, inner]);
    }

    #[test]
    fn keywords_of_older_drafts_are_followed_where_the_compiler_follows_them() {
        let old = json!({"$ref": "#/old", "old": {"items": [{}, {}], "additionalItems": {}, "dependencies": {"a": {}, "b": ["c"]}}});
        assert_eq!(walk(&old).unwrap().steps, 2 + 3 + 1 + 2);
        let recursive = json!({"unevaluatedProperties": false, "$recursiveRef": 5});
        assert!(walk(&recursive).is_err());
    }

    /// Each level of such a value is validated twice, so its last one would be validated 2^100 times.
    #[test]
    fn unevaluated_parts_that_refer_to_the_whole_are_refused() {
        for schema in [
            json!({"$dynamicAnchor": "x", "type": "object", "unevaluatedProperties": {"$ref": "#"}, "not": {"$dynamicRef": "#y"},
                "$defs": {"y": {"$dynamicAnchor": "y"}}}),
            json!({"contains": {"$ref": "#"}, "unevaluatedItems": false}),
        ] {
            assert!(walk(&schema).unwrap_err().contains("steps"));
        }
        assert!(walk(&json!({"contains": {"$ref": "#"}})).is_ok());
    }

    #[test]
    fn an_unevaluated_keyword_evaluates_its_neighbours_again() {
        let schema = json!({"allOf": [{}, {}], "$ref": "#/$defs/a", "$defs": {"a": {}}});
        assert_eq!(walk(&schema).unwrap().steps, 4);
        let again = json!({"allOf": [{}, {}], "$ref": "#/$defs/a", "$defs": {"a": {}}, "unevaluatedProperties": false});
        assert_eq!(walk(&again).unwrap().steps, 1 + TIMES_BESIDE_UNEVALUATED * 3 + TIMES_BY_UNEVALUATED);
    }
}
