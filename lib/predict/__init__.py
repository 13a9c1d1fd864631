"""What single pictures show, by weights of any kind: tools/predict.py's work.

`inputs`: which pictures the command line names; `network`: weights, their network and class
names; `writing`: results as csv or json; `cam`: where the network looks; `run`: the whole of it.
"""

from lib.predict.run import PredictRequest, predict_pictures

__all__ = ["PredictRequest", "predict_pictures"]
