NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE, equal mass",
    "ece_width": "ECE, equal width",
    "auroc": "AUROC",
    "f1": "F1",
    "token_accuracy": "token accuracy",
}
