//! The config files inside the binary, for working directories that have none.
//! A test compares the lists with the folders.

macro_rules! embed {
    ($folder:literal, $file:literal) => {
        (
            $file,
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/",
                $folder,
                "/",
                $file
            )),
        )
    };
}

/// The folder `configs/`, sorted by path.
pub(super) static CONFIGS: &[(&str, &str)] = &[
    embed!("configs", "config.yaml"),
    embed!("configs", "inference/default.yaml"),
    embed!("configs", "lora/default.yaml"),
    embed!("configs", "lora/gpt2.yaml"),
    embed!("configs", "model/gpt2.yaml"),
    embed!("configs", "model/llama3_8b.yaml"),
    embed!("configs", "model/mistral_7b.yaml"),
    embed!("configs", "model/qwen2_5_3b.yaml"),
    embed!("configs", "model/qwen2_5_7b.yaml"),
    embed!("configs", "model/qwen3_8b.yaml"),
    embed!("configs", "model/tiny.yaml"),
    embed!("configs", "model/zephyr_7b.yaml"),
    embed!("configs", "quantization/nf4.yaml"),
    embed!("configs", "quantization/none.yaml"),
    embed!("configs", "task/abstractive.yaml"),
    embed!("configs", "task/alpaca.yaml"),
    embed!("configs", "task/chat.yaml"),
    embed!("configs", "task/mcq.yaml"),
    embed!("configs", "task/saq.yaml"),
    embed!("configs", "task/squad.yaml"),
    embed!("configs", "task/sst2.yaml"),
    embed!("configs", "task/text.yaml"),
    embed!("configs", "task/tokens.yaml"),
    embed!("configs", "training/default.yaml"),
    embed!("configs", "training/mcq.yaml"),
    embed!("configs", "training/saq.yaml"),
];

/// The folder `experiments/`, sorted by path.
pub(super) static EXPERIMENTS: &[(&str, &str)] = &[
    embed!("experiments", "abstractive_qwen3.yaml"),
    embed!("experiments", "academic_zephyr.yaml"),
    embed!("experiments", "diverse.yaml"),
    embed!("experiments", "low_memory.yaml"),
    embed!("experiments", "mcq.yaml"),
    embed!("experiments", "not_learning.yaml"),
    embed!("experiments", "overfitting.yaml"),
    embed!("experiments", "pretrain_tiny.yaml"),
    embed!("experiments", "pretrain_tiny_cues.yaml"),
    embed!("experiments", "rank_ablation.yaml"),
    embed!("experiments", "saq.yaml"),
    embed!("experiments", "squad_gpt2.yaml"),
    embed!("experiments", "unstable.yaml"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn compare(folder: &str, embedded: &[(&str, &str)]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files: Vec<String> = walkdir::WalkDir::new(&root)
            .into_iter()
            .map(|entry| entry.unwrap_or_else(|e| panic!("{e}")).into_path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
            .filter_map(|path| Some(path.strip_prefix(&root).ok()?.to_str()?.to_string()))
            .collect();
        files.sort();
        let names: Vec<&str> = embedded.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, files, "embedded.rs and {folder}/ differ");
    }

    #[test]
    fn the_lists_are_complete_and_sorted() {
        compare("configs", CONFIGS);
        compare("experiments", EXPERIMENTS);
    }
}
