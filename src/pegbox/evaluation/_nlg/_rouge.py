from pegbox.evaluation._nlg._measure import Measured, Texts, library, mean


def rouge_l(texts: Texts) -> Measured:
    """Mean ROUGE-L F-measure by rouge-score, the best reference of each row, 0 to 1.

    Its own tokeniser: lower case, runs of a-z and 0-9 (no other script), no stemming.
    Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3.1.

    Raises:
        MissingError: rouge-score is not installed.
    """
    scorer = library("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    pairs = zip(texts.predictions, texts.references, strict=True)
    return Measured(
        {"rouge_l": mean([scorer.score_multi(row, own)["rougeL"].fmeasure for own, row in pairs])}
    )
