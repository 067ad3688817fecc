"""Known networks for images, with the names, arguments and weights that Keras gives them."""

from graphc.frontend.applications.cifar_resnet import CifarResNet as CifarResNet
from graphc.frontend.applications.cifar_resnet import ResNet20 as ResNet20
from graphc.frontend.applications.cifar_resnet import ResNet32 as ResNet32
from graphc.frontend.applications.cifar_resnet import ResNet44 as ResNet44
from graphc.frontend.applications.cifar_resnet import ResNet56 as ResNet56
from graphc.frontend.applications.cifar_resnet import ResNet110 as ResNet110
from graphc.frontend.applications.lenet import LeNet5 as LeNet5
from graphc.frontend.applications.mobilenet import MobileNetV2 as MobileNetV2
from graphc.frontend.applications.resnet import ResNet18 as ResNet18
from graphc.frontend.applications.resnet import ResNet34 as ResNet34
from graphc.frontend.applications.resnet import ResNet50 as ResNet50
from graphc.frontend.applications.vgg import VGG16 as VGG16
from graphc.frontend.applications.vgg import VGG19 as VGG19
