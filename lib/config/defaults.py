"""Every key of the configuration with its default, and the keys of other projects that are ignored.

A key exists here only if some code reads it.
"""

from __future__ import annotations

import yaml
from yacs.config import CfgNode

DEFAULTS = """
OUTPUT_DIR: output         # run folder: OUTPUT_DIR/<DATASET.DATASET>/<name of the yaml>
WORKERS: -1                # data-loading processes a card; -1: cores / cards
PRINT_FREQ: 100            # steps between two console lines; the device is synchronised only then
SEED: 0
CUDNN:
  BENCHMARK: true          # let cuDNN pick the fastest convolutions for the shapes it sees
  DETERMINISTIC: false
MODEL:
  NAME: hrnet_w18          # a row of ARCHS in lib/models/hrnet.py, or cls_hrnet with EXTRA
  IMAGE_SIZE: [224, 224]
  NUM_CLASSES: 0           # 0: as many as the data set has
  PRETRAINED: ''           # weights to start from: a file, a name, or an http(s) address
  NEW_HEAD: false          # start a new classifier, unless the weights name the same classes
  EXTRA: {}                # STAGE1..4 as in the official yaml files
  FREEZE: []               # parts not trained: stem, layer1, stage2, stage3, stage4, or backbone
DATASET:
  DATASET: imagenet        # names the run folder
  ROOT: ''                 # used where no data path is given on the command line
  TRAIN_SET: train
  TEST_SET: val
  VAL_SHARE: 0.0           # of each class in TRAIN_SET, set aside in place of TEST_SET; 0: none
  SPLIT_SEED: 0            # which pictures those are
  BAD_IMAGES: skip         # skip | fail: what a picture that cannot be decoded means
  BAD_IMAGES_MAX_SHARE: 0.01
  DECODER: auto            # of training pictures: fast | pillow; auto: fast where it is installed
  ORIENTATION: ignore      # of photos by their EXIF data: ignore (as torchvision) | exif: upright
AUG:
  CROP_SCALE: [0.08, 1.0]  # share of the picture's area that a random crop covers
  CROP_RATIO: [0.75, 1.3333333333333333]
  HFLIP: 0.5               # probability of a horizontal flip
  AUTO: 'no'               # randaugment | trivialaugment (with torchvision) | no
  RANDAUGMENT: [2, 9]      # operations a picture, and their strength in 0..30
  ERASE: 0.0               # probability that a rectangle is erased (with torchvision)
  MIXUP: 0.0               # alpha of the Beta distribution that shares are drawn from; 0: off
  CUTMIX: 0.0              # likewise
  MIX_PROB: 1.0            # share of the batches that are mixed, where one of the two is on
  MIX_SWITCH_PROB: 0.5     # probability of cutmix, where both are on
TRAIN:
  BATCH_SIZE_PER_GPU: 32
  END_EPOCH: 100
  RESUME: false            # continue from the run folder's checkpoint where there is one
  OPTIMIZER: sgd           # sgd | adam | adamw | rmsprop
  LR: 0.05                 # for one card; multiplied by the number of cards
  SCHEDULE: step           # step | cosine | poly
  LR_STEP: [30, 60, 90]    # step: epochs at which the rate is multiplied by LR_FACTOR
  LR_FACTOR: 0.1
  LR_MIN: 0.0              # cosine, poly: the rate at the end, for one card
  LR_POWER: 1.0            # poly: 1 is a straight line
  WARMUP_EPOCHS: 0.0       # in which the rate rises from WARMUP_FACTOR of it, at every step
  WARMUP_FACTOR: 0.01
  HEAD_LR_FACTOR: 1.0      # the classifier's rate in relation to the rest's
  LAYER_DECAY: 1.0         # rate of a part (stem, layer1, stage2..4) to that of the one after it
  WD: 0.0001
  WD_NORM_BIAS: true       # weight decay on norms and biases too
  CLIP_GRAD_NORM: 0.0      # largest norm of all gradients together; 0: any
  EMA_DECAY: 0.0           # of a moving average of the weights, such as 0.9999; 0: none
  SYNC_BN: false           # batch norms over the images of all cards
  EARLY_STOP: 0            # epochs without a better top-1 after which the run ends; 0: never
  MOMENTUM: 0.9
  NESTEROV: true
  LOSS: cross_entropy      # cross_entropy | bce (mean over the classes: wants a higher rate in sgd)
  LABEL_SMOOTHING: 0.0     # what of a label is spread over all classes
  CLASS_WEIGHTS: 'no'      # no | balanced | a number a class, as '1, 2.5, 1' in their sorted order
  PRECISION: auto          # auto (fp16 on npu and cuda, fp32 on cpu) | fp32 | hf32 | fp16 | bf16
  AMP_BACKEND: torch       # torch | apex (Ascend's apex, O2, on npu)
  ACCUM_STEPS: 1           # parts in which a batch is computed, to need less memory
  CHECKPOINT_ACTIVATIONS: false  # compute maps again for the gradients instead of keeping them
  MEMORY_FORMAT: auto      # channels_last | contiguous | auto (contiguous on npu only)
  COMPILE: 'no'            # torch.compile: no | default | reduce-overhead | max-autotune
  WIDTH_MULTIPLE: 1        # compute with widths rounded up to it by zeros: 1 | 8 | 16 | 32
  SAVE_EVERY_STEPS: 0      # also save inside an epoch; 0: at its end only
DISTILL:
  TEACHER: ''              # weights (file, name, address) to learn from, beside the labels or alone
  ARCH: ''                 # its network: a row of ARCHS, or timm/<name>; '': MODEL.NAME
  LOSS: js                 # js (Jensen-Shannon, as SSLD) | kl
  TEMPERATURE: 1.0
  WEIGHT: 1.0              # share of this loss beside the labels' own; 1: labels are not used
TEST:
  BATCH_SIZE_PER_GPU: 32
  FOLD_BN: false           # valid.py evaluates with batch norms folded into the convolutions
  FLIP: false              # evaluate with the mean of the logits of a picture and its mirror image
  IMAGE_SIZE: 0            # side of what is evaluated; 0: MODEL.IMAGE_SIZE
  RESIZE: 0                # short side before its crop; 0: in the proportion of training, 256 : 224
  MODEL_FILE: ''           # weights that valid.py evaluates: a file, a name, or an address
"""

# Keys of the official HRNet and Ascend yaml files that mean nothing here.
LEGACY_KEYS = """
GPUS LOG_DIR DATA_DIR AUTO_RESUME PIN_MEMORY RANK CUDNN.ENABLED LOSS DEBUG
MODEL.INIT_WEIGHTS MODEL.NUM_JOINTS MODEL.TAG_PER_JOINT MODEL.TARGET_TYPE MODEL.HEATMAP_SIZE
MODEL.SIGMA DATASET.DATA_FORMAT DATASET.HYBRID_JOINTS_TYPE DATASET.SELECT_DATA DATASET.FLIP
DATASET.SCALE_FACTOR DATASET.ROT_FACTOR DATASET.PROB_HALF_BODY DATASET.NUM_JOINTS_HALF_BODY
DATASET.COLOR_RGB TRAIN.GAMMA1 TRAIN.GAMMA2 TRAIN.BEGIN_EPOCH TRAIN.CHECKPOINT TRAIN.SHUFFLE
TEST.FLIP_TEST TEST.POST_PROCESS TEST.SHIFT_HEATMAP TEST.USE_GT_BBOX TEST.IMAGE_THRE
TEST.NMS_THRE TEST.SOFT_NMS TEST.OKS_THRE TEST.IN_VIS_THRE TEST.COCO_BBOX_FILE TEST.BBOX_THRE
"""
OFFICIAL_NAME = "cls_hrnet"  # MODEL.NAME of the official yaml files, whose network is MODEL.EXTRA


def default_config() -> CfgNode:
    """Return the defaults as a configuration of its own, not frozen."""
    return CfgNode(yaml.safe_load(DEFAULTS))
