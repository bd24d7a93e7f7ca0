//! Interpolations and resolvers in a small config, beside what OmegaConf gives.

use std::path::PathBuf;
use std::sync::Arc;

use super::Resolver;
use crate::compose::scope::Scope;
use crate::compose::yaml_read;

const CONFIG: &str = "a: {b: 5, s: str, l: [10, 20, {k: v}], n: null, f: 1.5, t: true, miss: '???'}\n\
    key: b\nidx: 1\ntop: 9\nx: {sib: 8, q: {w: 1}, y: {sib: 7, z: PLACE}}\n";

/// What `text` gives at `x.y.z`, as JSON.
fn resolved(text: &str) -> Result<String, String> {
    let path = Arc::new(PathBuf::from("r.yaml"));
    let quoted = format!("'{}'", text.replace('\'', "''"));
    let yaml = CONFIG.replace("PLACE", &quoted);
    let root = yaml_read::read_yaml(&yaml, &path).map_err(|p| p.to_string())?;
    let scope = Scope::new(chrono::Local::now());
    let mut resolver = Resolver::new(&root, None, &scope);
    let join = |problems: Vec<crate::compose::Problem>| {
        let lines: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
        lines.join("; ")
    };
    let node = resolver.resolve_all().map_err(join)?;
    let value = node.select("x.y.z").map(|n| n.to_json().to_string());
    Ok(value.unwrap_or_default())
}

#[test]
fn what_a_resolver_makes_comes_from_lines_of_the_config() {
    let yaml = "d:\n  a: 1\n  b: ${n}\n  c: [x]\nn: 2\n\
        values: ${oc.dict.values:d}\n\
        keys: ${oc.dict.keys:d}\n\
        made: ${oc.create:[1,${d.c}]}\n\
        read: \"${oc.create:'p: [1]'}\"\n\
        decoded: \"${oc.decode:'{q: [1]}'}\"\n";
    let path = Arc::new(PathBuf::from("r.yaml"));
    let root = yaml_read::read_yaml(yaml, &path).expect("valid");
    let scope = Scope::new(chrono::Local::now());
    let resolved = Resolver::new(&root, None, &scope).resolve_all();
    let resolved = resolved.expect("resolves");
    for (key, line) in [
        ("values", 6),
        ("values.0", 2),
        ("values.1", 3),
        ("values.2", 4),
        ("values.2.0", 4),
        ("keys", 7),
        ("keys.2", 4),
        ("made", 8),
        ("made.0", 8),
        ("made.1", 4),
        ("read", 9),
        ("read.p.0", 9),
        ("decoded.q.0", 10),
    ] {
        let origin = &resolved.select(key).expect(key).origin;
        assert_eq!(origin.to_string(), format!("r.yaml:{line}"), "{key}");
    }
}

/// Appendix F of the measured OmegaConf behaviour.
#[test]
fn interpolations_give_what_omegaconf_gives() {
    for (text, expected) in [
        ("${a.b}", "5"),
        ("pre_${a.b}_post", r#""pre_5_post""#),
        ("${.sib}", "7"),
        ("${..sib}", "8"),
        ("${...top}", "9"),
        ("${a.l[0]}", "10"),
        ("${a[l][2][k]}", r#""v""#),
        ("${a.${key}}", "5"),
        ("n=${a.n}", r#""n=None""#),
        ("v${a.t}", r#""vTrue""#),
        ("v${a.l}", r#""v[10, 20, {'k': 'v'}]""#),
        (r"\${a.b}", r#""${a.b}""#),
        (r"\\${a.b}", r#""\\5""#),
        ("${ a.b }", "5"),
        ("${a.miss}", r#""???""#),
        ("x${a.miss}", r#""???""#),
        ("${oc.env:KILN_TEST_NO_SUCH_VARIABLE,3}", r#""3""#),
        ("${oc.env:KILN_TEST_NO_SUCH_VARIABLE,null}", "null"),
        ("${oc.decode:null}", "null"),
        ("${oc.decode:'{a:1,b:[x]}'}", r#"{"a":1,"b":["x"]}"#),
        ("${oc.select:a.zz}", "null"),
        ("${oc.select:a.b.c,def}", r#""def""#),
        ("${oc.select:a.miss,def}", r#""def""#),
        ("${oc.select:..sib}", "8"),
        ("${oc.create:[1,${a.b}]}", "[1,5]"),
        ("${oc.dict.keys:x.q}", r#"["w"]"#),
        ("${oc.dict.values:x.q}", "[1]"),
        ("${oc.deprecated:a.b}", "5"),
        ("${mul:3,${a.b}}", "15"),
        ("${python_version:}", r#""3.11""#),
        ("${python_version:micro}", r#""3.11.7""#),
        ("${python_version:nano}", "null"),
        (
            "${oc.create:[99999999999999999999]}",
            r#"["99999999999999999999"]"#,
        ),
        ("${min:2,1.5}", "1.5"),
        ("${round:2.345,2}", "2.35"),
    ] {
        assert_eq!(resolved(text), Ok(expected.to_string()), "{text}");
    }
}

#[test]
fn failures_say_what_and_where() {
    for (text, part) in [
        ("${nope}", "'nope' not found"),
        ("${topp}", "did you mean 'top'?"),
        ("${a.b.c}", "leads nowhere"),
        ("${......a}", "above the top"),
        ("${x.y.z}", "leads back to itself"),
        ("${x}", "holds the interpolation itself"),
        ("${a.l[${idx}]}", "must give a string"),
        ("${a.l.k}", "only numbers"),
        ("${oc.env:KILN_TEST_NO_SUCH_VARIABLE}", "is not set"),
        ("${oc.decode:'[1'}", "cannot be decoded"),
        ("${oc.dict.values:a.l}", "is list"),
        ("${oc.evn:A}", "did you mean 'oc.env'?"),
        ("${hydra:job.name}", "once the config is composed"),
        ("${now:}", "takes 1 arguments"),
        ("${div:1,0}", "division of 1 by zero"),
        ("${mul:3,a}", "takes numbers"),
    ] {
        let message = resolved(text).expect_err(text);
        assert!(
            message.contains(part) && message.starts_with("r.yaml:"),
            "{text}: {message}"
        );
    }
}
