//! What the build script of the command tells its arguments; no target looks at it.

fn main() {
    for name in ["COMMIT", "TARGET", "RUSTC"] {
        println!("cargo::rustc-env=BNKIT_BUILD_{name}=unknown");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
